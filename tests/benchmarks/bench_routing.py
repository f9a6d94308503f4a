"""What a routing policy saves: prompt tokens that had to be computed, and the time to first token.

`python -m tests.benchmarks.bench_routing`: conversations that share a system prompt and go on turn
by turn, over four agents with one thread each, once for each policy with a fresh balancer and fresh
agents; the policies' order rotates from round to round. Three cells: the conversations do not fit
one agent's cache (all four together hold them), they do fit, and prompts that share nothing. So
many requests are open all the time (`--open`); which conversation goes on next is drawn, else
round-robin would meet each one on the same agent by accident.

A round of one of the first two cells took four minutes on two cores, 14 with much other work;
`--quick`, `--rounds` and `--cells` make it shorter.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.outcome import keep
from tests.benchmarks.peers.exchange import Answer
from tests.benchmarks.peers.machine import facts
from tests.benchmarks.peers.ratios import Estimate, estimate, paired_ratios
from tests.benchmarks.peers.sides import Dialect
from tests.benchmarks.peers.target import Message, Target
from tests.support.cluster import Cluster, wait_until
from tests.support.random_gguf import SIZES, prompt_tokens, random_gguf, text_of

POLICIES = ("prefix_aware", "least_busy", "round_robin")
AGENTS, SLOTS, CONTEXT = 4, 4, 2048
SYSTEM, QUESTION, ANSWER = 600, 60, 12
"""Tokens. A turn's prompt has some of the chat template's beside them."""
INDEPENDENT = 120
METRICS = ("computed_tokens", "ttft_p50_ms", "ttft_p99_ms")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A load. An agent keeps four conversations in its slots and what fits into `host_mib`."""

    name: str
    host_mib: int
    is_shared: bool = True
    """False: every prompt is a conversation of its own, with one turn and no system prompt."""


CELLS = (
    Cell(name="working set above one agent's cache", host_mib=96),
    Cell(name="working set below one agent's cache", host_mib=2048),
    Cell(name="independent prompts", host_mib=96, is_shared=False),
)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large everything is."""

    model: Path
    conversations: int
    turns: int
    rounds: int
    open: int
    patience_s: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class Round:
    """One policy's part of a round; times in milliseconds or seconds as named."""

    round: int
    policy: str
    requests: int
    prompt_tokens: int
    cached_tokens: int
    ttft_p50_ms: float
    ttft_p99_ms: float
    seconds: float

    @property
    def computed_tokens(self) -> int:
        """Prompt tokens that no cache had."""
        return self.prompt_tokens - self.cached_tokens


class Conversation:
    """Questions that are asked one after the other, each with all that was said before."""

    def __init__(self, system: str, questions: Sequence[str]) -> None:
        self._messages: list[Message] = [{"role": "system", "content": system}] if system else []
        self._questions = list(reversed(questions))

    @property
    def is_over(self) -> bool:
        """Whether every question was asked."""
        return not self._questions

    async def go_on(self, target: Target) -> Answer:
        """Ask the next question."""
        self._messages.append({"role": "user", "content": self._questions.pop()})
        answer = await target.chat(self._messages, ANSWER).send()
        self._messages.append({"role": "assistant", "content": answer.text})
        return answer


def conversations(cell: Cell, scale: Scale, dice: random.Random) -> list[Conversation]:
    """The same for every policy of a round."""
    if not cell.is_shared:
        count = scale.conversations * scale.turns
        return [Conversation("", [_words(dice, INDEPENDENT)]) for _ in range(count)]
    system = _words(dice, SYSTEM)
    return [
        Conversation(system, [_words(dice, QUESTION) for _ in range(scale.turns)])
        for _ in range(scale.conversations)
    ]


async def converse(
    target: Target, ready: list[Conversation], *, most_open: int, dice: random.Random
) -> list[Answer]:
    """Keep so many requests open until every conversation is over."""
    answers: list[Answer] = []

    async def client() -> None:
        while ready:
            conversation = ready.pop(dice.randrange(len(ready)))
            answers.append(await conversation.go_on(target))
            if not conversation.is_over:
                ready.append(conversation)

    async with asyncio.TaskGroup() as group:
        for _ in range(most_open):
            group.create_task(client())
    return answers


def play(cell: Cell, scale: Scale, policy: str, number: int, folder: Path) -> Round:
    """One policy on a fresh fleet."""
    cluster = Cluster(folder)
    try:
        _start(cluster, cell, scale, policy)
        target = Target(
            host="127.0.0.1",
            port=cluster.inference_port,
            dialect=Dialect(token_ids=False, ignore_eos=True, model="demo"),
        )
        seed = f"{scale.seed} {cell.name} {number}"
        ready = conversations(cell, scale, random.Random(seed))

        async def bounded() -> list[Answer]:
            async with asyncio.timeout(scale.patience_s):
                dice = random.Random(f"order {seed}")
                return await converse(target, ready, most_open=scale.open, dice=dice)

        started = time.monotonic()
        answers = asyncio.run(bounded())
        return _summed(answers, policy, number, time.monotonic() - started)
    finally:
        cluster.close()


def _start(cluster: Cluster, cell: Cell, scale: Scale, policy: str) -> None:
    quiet = ("--log-level", "warning")
    cluster.start_balancer("--policy", policy, "--queue-timeout", "3600", *quiet)
    flags = ["--slots", str(SLOTS), "--context", str(SLOTS * CONTEXT)]
    flags += ["--host-cache", str(cell.host_mib), "--speculation", "off"]
    flags += ["--cache-type", "f16", "--flash-attention", "on", *quiet]
    for agent in range(AGENTS):
        cluster.start_agent(f"agent-{agent}", *flags, model=scale.model, wait=False)
    wait_until(
        lambda: sum(row["slots"]["total"] for row in cluster.agents().values()) == AGENTS * SLOTS,
        what="all agents serve",
    )


def _summed(answers: list[Answer], policy: str, number: int, seconds: float) -> Round:
    waits = sorted(1000 * answer.first_text_s for answer in answers)
    usages = [answer.last("usage") for answer in answers]
    return Round(
        round=number,
        policy=policy,
        requests=len(answers),
        prompt_tokens=sum(usage["prompt_tokens"] for usage in usages),
        cached_tokens=sum(usage["prompt_tokens_details"]["cached_tokens"] for usage in usages),
        ttft_p50_ms=round(waits[len(waits) // 2], 1),
        ttft_p99_ms=round(waits[min(len(waits) - 1, int(0.99 * len(waits)))], 1),
        seconds=round(seconds, 1),
    )


def measure(cell: Cell, scale: Scale) -> list[Round]:
    """All rounds of a cell, each policy once in every round, another one first each time."""
    rounds = []
    for number in range(scale.rounds):
        shift = number % len(POLICIES)
        for policy in (*POLICIES[shift:], *POLICIES[:shift]):
            with tempfile.TemporaryDirectory() as folder:
                played = play(cell, scale, policy, number, Path(folder))
            rounds.append(played)
            print(
                f"  {cell.name}, round {number + 1}, {policy}: {played.computed_tokens} of "
                f"{played.prompt_tokens} tokens computed, TTFT p50 {played.ttft_p50_ms:.0f} ms, "
                f"{played.seconds:.0f} s",
                file=sys.stderr,
                flush=True,
            )
    return rounds


def ratio(rounds: Sequence[Round], policy: str, metric: str) -> Estimate | None:
    """The first policy's figure over this one's, paired by round."""
    ours, theirs = (
        {(one.round, 0): float(getattr(one, metric)) for one in rounds if one.policy == name}
        for name in (POLICIES[0], policy)
    )
    return estimate(list(paired_ratios(ours, theirs).values()))


def table(measured: dict[str, list[Round]]) -> str:
    """The figures as text."""
    lines = [
        f"{'cell':<38}{'policy':<14}{'computed':>10}{'of':>9}{'TTFT p50 ms':>13}{'p99 ms':>9}"
        f"{'s':>7}  {POLICIES[0]} over this: computed; TTFT p50; p99 (95 % over rounds)"
    ]
    for cell, rounds in measured.items():
        for policy in POLICIES:
            mine = [one for one in rounds if one.policy == policy]
            over = [] if policy == POLICIES[0] else [ratio(rounds, policy, m) for m in METRICS]
            lines.append(
                f"{cell:<38}{policy:<14}{_mean(mine, 'computed_tokens'):>10.0f}"
                f"{_mean(mine, 'prompt_tokens'):>9.0f}{_mean(mine, 'ttft_p50_ms'):>13.0f}"
                f"{_mean(mine, 'ttft_p99_ms'):>9.0f}{_mean(mine, 'seconds'):>7.0f}  "
                + "; ".join(map(_shown, over))
            )
    return "\n".join(lines)


def _mean(rounds: Sequence[Round], figure: str) -> float:
    return sum(float(getattr(one, figure)) for one in rounds) / len(rounds)


def _shown(found: Estimate | None) -> str:
    if found is None:
        return "-"
    if found.low is None:
        return f"{found.mean:.3f}"
    return f"{found.mean:.3f} ({found.low:.3f} to {found.high:.3f})"


def _words(dice: random.Random, tokens: int) -> str:
    return text_of(prompt_tokens(dice, tokens))


def document(measured: dict[str, list[Round]], settings: dict[str, Any]) -> dict[str, Any]:
    """Everything that was seen."""
    cells = []
    for cell, rounds in measured.items():
        ratios = {
            policy: {
                metric: asdict(found) if (found := ratio(rounds, policy, metric)) else None
                for metric in METRICS
            }
            for policy in POLICIES[1:]
        }
        rows = [{**asdict(one), "computed_tokens": one.computed_tokens} for one in rounds]
        cells.append({"cell": cell, "first_over_these": ratios, "rounds": rows})
    return {"benchmark": "routing", "cells": cells, "settings": settings, "machine": facts()}


def main(arguments: list[str] | None = None) -> None:
    """Measure the cells that were asked for, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conversations", type=int, default=40)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--open", type=int, default=8, help="requests at any time")
    parser.add_argument("--cells", type=int, nargs="*", default=[1, 2, 3], help="of three")
    parser.add_argument("--model", choices=tuple(SIZES), default="small")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--patience", type=float, default=900.0, help="seconds for one policy")
    parser.add_argument("--label", default="", help="put into the files' names")
    parser.add_argument("--quick", action="store_true", help="12 conversations of 4 turns, once")
    given = parser.parse_args([] if arguments is None else arguments)
    if given.quick:
        given.conversations, given.turns, given.rounds = 12, 4, 1
    scale = Scale(
        model=random_gguf(given.model),
        conversations=given.conversations,
        turns=given.turns,
        rounds=given.rounds,
        open=given.open,
        patience_s=given.patience,
        seed=given.seed,
    )
    measured = {CELLS[n - 1].name: measure(CELLS[n - 1], scale) for n in given.cells}
    name = "-".join(filter(None, ("routing", given.label)))
    keep(name, document(measured, vars(given)), table(measured))


if __name__ == "__main__":
    main(sys.argv[1:])
