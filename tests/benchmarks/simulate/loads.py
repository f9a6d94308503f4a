"""Who asks for what, and when: conversations, strangers, failures, and what was recorded."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path

import msgspec
from msgspec import Struct

from protocol.prefix_chain import HASH_BYTES
from tests.benchmarks.simulate.site import Job, Site
from tests.benchmarks.simulate.speed import Speed

LONGEST_ANSWER = 2000
LIMITS = (None, None, 64, 256, 1024)
"""`max_tokens` as clients set them."""
MEAN_TOKENS = 97.0
"""Of the answers below, with the limits; measured over a million draws."""
MEAN_TURNS = 6.0
SYSTEM_PROMPTS, SYSTEM_BLOCKS = 20, 5


@dataclass(frozen=True)
class Crowd:
    """How many ask how often. `rate` is requests a second."""

    requests: int
    tenants: int
    rate: float
    seed: int = 1


class Draws:
    """Tenants by Zipf's law, answers with a heavy tail (lognormal, sigma 1)."""

    def __init__(self, crowd: Crowd, *, first: int = 0) -> None:
        self.dice = random.Random(crowd.seed)
        self._tenants = [f"tenant-{n}" for n in range(crowd.tenants)]
        self._weights = list(accumulate(1 / (rank + 1) for rank in range(crowd.tenants)))
        self._ordinals = itertools.count(first)

    def tenant(self) -> str:
        return self.dice.choices(self._tenants, cum_weights=self._weights)[0]

    def job(self, tenant: str, chain: bytes, now_s: float) -> Job:
        """A request for an answer of some length."""
        limit = self.dice.choice(LIMITS)
        wanted = max(int(self.dice.lognormvariate(4.2, 1.0)), 1)
        tokens = min(wanted, LONGEST_ANSWER if limit is None else limit)
        return Job(next(self._ordinals), tenant, chain, tokens, now_s, max_tokens=limit)


def conversations(site: Site, crowd: Crowd) -> None:
    """One to eleven turns over one of twenty system prompts, thinking for five seconds between."""
    draws, clock, left = Draws(crowd), site.clock, crowd.requests
    dice = draws.dice
    systems = [blocks(f"system {n}", SYSTEM_BLOCKS) for n in range(SYSTEM_PROMPTS)]

    def turn(tenant: str, chain: bytes, turns: int) -> None:
        nonlocal left
        if left <= 0:
            return
        left -= 1
        asked = chain + blocks(f"question {left}", dice.randrange(1, 3))
        job = draws.job(tenant, asked, clock.now_s)
        if turns > 1:
            after = asked + blocks(f"answer {left}", 1)
            job.on_end = partial(think, tenant, after, turns - 1)
        site.arrive(job)

    def think(tenant: str, chain: bytes, turns: int) -> None:
        clock.at(clock.now_s + dice.expovariate(1 / 5.0), turn, tenant, chain, turns)

    def begin() -> None:
        if left > 0:
            turn(draws.tenant(), dice.choice(systems), dice.randrange(1, 12))
            clock.at(clock.now_s + dice.expovariate(crowd.rate / MEAN_TURNS), begin)

    begin()


def strangers(site: Site, crowd: Crowd) -> None:
    """Single requests that share nothing, of one to eight blocks."""
    draws, clock, left = Draws(crowd), site.clock, crowd.requests
    dice = draws.dice

    def begin() -> None:
        nonlocal left
        if left > 0:
            left -= 1
            chain = blocks(f"stranger {left}", dice.randrange(1, 9))
            site.arrive(draws.job(draws.tenant(), chain, clock.now_s))
            clock.at(clock.now_s + dice.expovariate(crowd.rate), begin)

    begin()


Load = Callable[[Site, Crowd], None]
LOADS: dict[str, Load] = {"conversations": conversations, "strangers": strangers}
MISSING_BLOCKS = {"conversations": 2.0, "strangers": 4.5}
"""Of a prompt, with a perfect cache."""


def most_a_second(load: str, speed: Speed, slots: int) -> float:
    """Requests that an agent could answer, if it were always full and its cache perfect."""
    answer_ms = MEAN_TOKENS * speed.step_ms(slots) / slots
    return 1000 / (MISSING_BLOCKS[load] * speed.block_ms + answer_ms)


def failures(site: Site, *, every_s: float, seed: int = 2) -> None:
    """An agent dies every so often, and is back after ten seconds."""
    dice, clock = random.Random(seed), site.clock

    def strike() -> None:
        site.kill(dice.choice(site.agents), back_after_s=10.0)
        clock.in_background(clock.now_s + dice.expovariate(1 / every_s), strike)

    clock.in_background(dice.expovariate(1 / every_s), strike)


class Recorded(Struct, frozen=True):
    """What is read of a line of `--record-routes`."""

    tenant: str
    arrived_s: float
    completion_tokens: int
    chain: str


class UnusableRecord(Exception):
    """A file is no record of requests; the text says where and why."""


def recorded(path: Path) -> list[Recorded]:
    """The requests of a file of `--record-routes`. Raises `UnusableRecord`."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UnusableRecord(f"{path} cannot be read: {error.strerror}") from error
    if not lines:
        raise UnusableRecord(f"{path} is empty; `balancer --record-routes` writes such a file")
    return [_route(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]


def _route(line: bytes, where: str) -> Recorded:
    try:
        route = msgspec.json.decode(line, type=Recorded)
        bytes.fromhex(route.chain)
    except ValueError as error:
        raise UnusableRecord(
            f"{where}: no line of `balancer --record-routes` ({error}); remove it"
        ) from error
    return route


def replayed(site: Site, routes: Sequence[Recorded]) -> None:
    """Recorded requests, in their order and at their times."""
    first_s = min(route.arrived_s for route in routes)
    for ordinal, route in enumerate(routes):
        arrived_s = route.arrived_s - first_s
        tokens = max(route.completion_tokens, 1)
        job = Job(ordinal, route.tenant, bytes.fromhex(route.chain), tokens, arrived_s)
        site.clock.at(arrived_s, site.arrive, job)


def blocks(text: str, count: int) -> bytes:
    """The hashes of so many blocks that this text alone has."""
    return b"".join(
        blake2b(f"{text} {n}".encode(), digest_size=HASH_BYTES).digest() for n in range(count)
    )
