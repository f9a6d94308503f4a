"""Limits of tokens under attack, with real engines.

Many clients take all they can get of one key's tokens a minute, for as long as it is to last; then
as many requests as wanted are left, refused, failed and robbed of their agents and engines. No
minute may have more tokens than the limit, counted from outside and from inside; and when all is
over nothing may be reserved, nothing leaked, no place taken.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import aiohttp

from tests.chaos.storm import Fleet
from tests.support.cluster import Cluster, eventually

MINUTE_S = 60.0
ATTACKERS = 200
AT_ONCE = 64
AGENTS = 2
LOOK_EVERY_S = 0.25
FAULT_EVERY_S = 1.5
WORTH_IT = 0.8
"""An attack goes on until so much of the limit was had: less would show nothing."""
PAUSE_S = (0.05, 0.4)
"""After a refusal; a client that never pauses takes the processor from all others."""
ADMIN, AGENT, GREEDY, UNLUCKY = "admin-key", "agent-key", "greedy-key", "unlucky-key"
COUNTED = {
    "settled": "paddler_settled_tokens_total",
    "moves": "paddler_generation_moves_total",
}
HELD = {
    "reservations": "paddler_token_reservations",
    "reserved": "paddler_reserved_tokens",
    "leaked": "paddler_leaked_reservations",
    "requests": "paddler_limited_requests",
    "in flight": "paddler_generations_in_flight",
    "waiting": "paddler_requests_waiting",
    "slots used": "paddler_agent_slots_used_count",
}
"""What there may be nothing of when all is over."""
SERIES = COUNTED | HELD

Body = dict[str, Any]


class Answered(NamedTuple):
    """A request that was let in: when it was sent and read to its end, and what it took."""

    sent_s: float
    read_s: float
    tokens: int


class Seen(NamedTuple):
    """The balancer's figures between two moments."""

    asked_s: float
    told_s: float
    figures: dict[str, float]


@dataclass
class Outcome:
    """What was seen of all of it."""

    limit: int
    answers: list[Answered] = field(default_factory=list)
    refused: int = 0
    looks: list[Seen] = field(default_factory=list)
    """During the attack."""
    ends: Counter[str] = field(default_factory=Counter)
    """Of the unlucky requests."""
    faults: Counter[str] = field(default_factory=Counter)
    left: dict[str, float] = field(default_factory=dict)
    """The figures when all was over."""
    most_leaked: float = 0.0

    @property
    def most_outside(self) -> int:
        """Tokens of a minute, of requests that were sent and read within it: whatever was counted
        when, it was counted then."""
        return max((self._of_minute(one.sent_s) for one in self.answers), default=0)

    @property
    def most_inside(self) -> float:
        """Tokens that were settled between two looks within a minute."""
        return max(
            (
                later.figures["settled"] - earlier.figures["settled"]
                for at, earlier in enumerate(self.looks)
                for later in self.looks[at:]
                if later.told_s - earlier.asked_s <= MINUTE_S
            ),
            default=0,
        )

    @property
    def words(self) -> str:
        """The figures."""
        faults = ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items()))
        ends = ", ".join(f"{count} {name}" for name, count in sorted(self.ends.items()))
        left = ", ".join(f"{name} {value:g}" for name, value in self.left.items())
        return (
            f"limit {self.limit} tokens a minute: {len(self.answers)} answers, {self.refused} "
            f"refused; most in a minute {self.most_outside} from outside, {self.most_inside:.0f} "
            f"from inside\n  {self.ends.total()} unlucky requests: {ends}; faults: {faults}\n  "
            f"afterwards: {left}; most ever leaked {self.most_leaked:g}"
        )

    @property
    def is_good(self) -> bool:
        """Whether the limit held, was worth attacking, and left nothing behind."""
        return (
            self.limit >= self.most_outside > WORTH_IT * self.limit
            and self.limit >= self.most_inside > WORTH_IT * self.limit
            and self.most_leaked == 0
            and not any(self.left[name] for name in HELD)
        )

    def _of_minute(self, from_s: float) -> int:
        return sum(
            one.tokens
            for one in self.answers
            if one.sent_s >= from_s and one.read_s <= from_s + MINUTE_S
        )


async def token_limits(
    folder: Path, *, seconds: float, requests: int, limit: int = 10_000, seed: int = 1
) -> Outcome:
    """Attack for so long, then have so many requests end badly."""
    dice, outcome = Random(seed), Outcome(limit)
    cluster = Cluster(folder, operator_key=ADMIN, agent_token=AGENT)
    fleet = Fleet(cluster, dice)
    file = folder / "balancer.yaml"
    file.write_text(json.dumps(_configuration(limit)))
    try:
        await fleet.start("--config", str(file), agents=AGENTS)
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(cluster.inference_url, connector=connector) as session:
            await _attack(session, cluster, outcome, dice, seconds)
            await _spoil(session, cluster, fleet, outcome, dice, requests)
            await _until_at_rest(cluster, outcome)
    finally:
        await asyncio.to_thread(cluster.close)
    return outcome


def _configuration(limit: int) -> Body:
    """Two keys under limits of tokens, and nobody under any other."""
    nothing: Body = {}
    return {
        "auth": {
            "api_keys": [
                {"key": ADMIN, "role": "admin"},
                {"key": AGENT, "role": "system"},
                {"key": GREEDY, "name": "greedy", "limits": {"tokens_per_minute": limit}},
                {"key": UNLUCKY, "name": "unlucky", "limits": {"tokens_per_minute": 10**9}},
            ]
        },
        "limits": {
            "roles": dict.fromkeys(("public", "user", "admin", "system"), nothing),
            "routes": dict.fromkeys(("chat", "models", "health", "metrics"), nothing),
        },
        "max_waiting_of_tenant": 1000,
    }


async def _look(cluster: Cluster, outcome: Outcome) -> Seen:
    asked_s = time.monotonic()
    data = await asyncio.to_thread(cluster.get, f"{cluster.management_url}/metrics")
    found = dict.fromkeys(SERIES, 0.0)
    for line in data.decode().splitlines():
        series, _, value = line.rpartition(" ")
        for name, wanted in SERIES.items():
            if series.partition("{")[0] == wanted:
                found[name] += float(value)
    outcome.most_leaked = max(outcome.most_leaked, found["leaked"])
    return Seen(asked_s, time.monotonic(), found)


# --- all they can get ---


async def _attack(
    session: aiohttp.ClientSession,
    cluster: Cluster,
    outcome: Outcome,
    dice: Random,
    seconds: float,
) -> None:
    started_s = time.monotonic()

    def goes_on() -> bool:
        passed_s = time.monotonic() - started_s
        used = sum(one.tokens for one in outcome.answers)
        return passed_s < seconds or (used <= WORTH_IT * outcome.limit and passed_s < MINUTE_S)

    async def attacker() -> None:
        while goes_on():
            answered = await _ask(session, _dice_rolls(dice), GREEDY)
            if answered is None:
                outcome.refused += 1
                await asyncio.sleep(dice.uniform(*PAUSE_S))
            else:
                outcome.answers.append(answered)

    async with asyncio.TaskGroup() as tasks:
        attackers = [tasks.create_task(attacker()) for _ in range(ATTACKERS)]
        while not all(one.done() for one in attackers):
            outcome.looks.append(await _look(cluster, outcome))
            await asyncio.sleep(LOOK_EVERY_S)
    outcome.looks.append(await _look(cluster, outcome))


async def _ask(session: aiohttp.ClientSession, body: Body, key: str) -> Answered | None:
    """None: it was refused for its limit."""
    sent_s = time.monotonic()
    headers = {"Authorization": f"Bearer {key}"}
    async with session.post("/v1/chat/completions", json=body, headers=headers) as answer:
        said = await answer.json()
    if answer.status == 429:
        assert said["error"]["code"] == "token_limit_exceeded", said
        return None
    assert answer.status == 200, said
    return Answered(sent_s, time.monotonic(), said["usage"]["total_tokens"])


def _dice_rolls(dice: Random) -> Body:
    return {
        "messages": [{"role": "user", "content": f"Roll a die {dice.choice((20, 60))} times."}],
        "max_tokens": dice.choice((20, 60, 150)),
        "seed": dice.randrange(10**6),
    }


# --- nothing ends well ---


async def _spoil(
    session: aiohttp.ClientSession,
    cluster: Cluster,
    fleet: Fleet,
    outcome: Outcome,
    dice: Random,
    requests: int,
) -> None:
    """So many requests, some of them at once, while agents and engines are killed."""
    kinds = _in_turn(requests)

    async def client() -> None:
        for kind in kinds:
            outcome.ends[await _unlucky(session, kind, dice)] += 1

    async with asyncio.TaskGroup() as tasks:
        clients = [tasks.create_task(client()) for _ in range(AT_ONCE)]
        while not all(one.done() for one in clients):
            for fault in dice.sample(("kill", "rob"), 2):
                if await fleet.strike(fault):
                    outcome.faults[fault] += 1
                    break
            await _look(cluster, outcome)
            await asyncio.sleep(FAULT_EVERY_S)


def _in_turn(requests: int) -> Iterator[Callable[[Random], Body]]:
    """All clients take the next from it."""
    kinds = cycle(KINDS)
    return (next(kinds) for _ in range(requests))


async def _unlucky(
    session: aiohttp.ClientSession, make: Callable[[Random], Body], dice: Random
) -> str:
    """How it ended for its client, who may not stay until it does."""
    headers = {"Authorization": f"Bearer {UNLUCKY}"}
    if dice.random() < 0.2:
        headers["X-Paddler-Resumable"] = "1"
    patience_s = dice.uniform(0.01, 2.0) if dice.random() < 0.4 else MINUTE_S
    try:
        async with (
            asyncio.timeout(patience_s),
            session.post("/v1/chat/completions", json=make(dice), headers=headers) as answer,
        ):
            is_broken = '"error"' in await answer.text()
            return "broken off" if is_broken and answer.status == 200 else f"HTTP {answer.status}"
    except TimeoutError:
        return "left"


def _rolls(dice: Random) -> Body:
    return {**_dice_rolls(dice), "max_tokens": 300, "stream": dice.random() < 0.7}


def _choices(dice: Random) -> Body:
    return {**_dice_rolls(dice), "n": 3, "stream": dice.random() < 0.5}


def _bad_grammar(dice: Random) -> Body:
    return {**_dice_rolls(dice), "grammar": "root ::= (", "stream": dice.random() < 0.5}


def _too_long(dice: Random) -> Body:
    return {**_dice_rolls(dice), "messages": [{"role": "user", "content": "word " * 20_000}]}


def _picture(dice: Random) -> Body:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    return {**_dice_rolls(dice), "messages": [{"role": "user", "content": [part]}]}


KINDS: tuple[Callable[[Random], Body], ...] = (
    _rolls,
    _rolls,
    _rolls,
    _choices,
    _bad_grammar,
    _too_long,
    _picture,
)


async def _until_at_rest(cluster: Cluster, outcome: Outcome) -> None:
    """Streams that nobody reads go on for a while; agents that were killed are missed."""

    def is_at_rest() -> bool:
        return not any(
            cluster.metric(SERIES[name]) for name in ("requests", "in flight", "slots used")
        )

    await eventually(is_at_rest, what="nothing to run any more")
    outcome.left = (await _look(cluster, outcome)).figures
