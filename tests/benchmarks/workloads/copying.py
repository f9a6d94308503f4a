"""Speculation where it can help: the shipped model repeats texts that stand in its prompt."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import agent.demo_model
from agent.demo_model import corpus
from tests.benchmarks.peers.exchange import Answer
from tests.benchmarks.peers.sides import Shape
from tests.benchmarks.peers.target import Target, elapsed_s, in_order, tokens_per_s
from tests.benchmarks.peers.workload import OURS, PEER, Cell, Metric, Played, Scale, Workload

SHIPPED = Path(agent.demo_model.__file__).with_name("paddler-demo.gguf")
TASKS, SHORTEST_CHARS, MOST = 24, 40, 160
LOOKUP = (
    "--spec-type ngram-mod --spec-ngram-mod-n-match 2 --spec-ngram-mod-n-min 1 "
    "--spec-ngram-mod-n-max 12"
)
"""The fastest on these tasks of the six kinds that need no second model."""


def _questions(dice: random.Random, count: int) -> list[str]:
    """Those of the model's copying tasks whose answers are worth drafting, untrained words all."""
    tasks = corpus.copying_tasks(dice, 20 * count)
    return [question for question, answer in tasks if len(answer) >= SHORTEST_CHARS][:count]


def _play(slots: int, count: int) -> Callable[[Target, random.Random], Awaitable[Played]]:
    async def play(target: Target, dice: random.Random) -> Played:
        asked = [
            target.reply([{"role": "user", "content": question}], MOST)
            for question in _questions(dice, count)
        ]
        answers = await in_order(asked, slots)
        return Played(
            metrics={
                "throughput": tokens_per_s(answers),
                "total": elapsed_s(answers),
                **_drafts(answers),
            },
            texts=tuple(answer.text for answer in answers),
        )

    return play


def _drafts(answers: list[Answer]) -> dict[str, float]:
    """Drafted and accepted tokens for each generated one, where the server reports them; once more
    for the answers that were complete before the last question was asked: all slots were busy."""
    last_sent_at = max(answer.sent_at for answer in answers)
    under_load = [answer for answer in answers if answer.ended_at < last_sent_at]
    drafted, accepted, checks = _counts(answers)
    found = {}
    if drafted:
        tokens = sum(answer.tokens for answer in answers)
        found = {"drafted_share": drafted / tokens, "accepted_share": accepted / tokens}
    if drafted and under_load:
        tokens = sum(answer.tokens for answer in under_load)
        # nothing at all has no ratio: a token in a million stands for it
        found["drafted_under_load"] = max(_counts(under_load)[0] / tokens, 1e-6)
    if checks:
        found["accepted_per_check"] = accepted / checks
    return found


def _counts(answers: list[Answer]) -> tuple[int, int, int]:
    """Drafted tokens, accepted ones, and decodes that checked some."""
    drafted = accepted = checks = 0
    for answer in answers:
        timings, performance = answer.last("timings"), answer.last("performance")
        drafted += timings.get("draft_n", performance.get("drafted_tokens", 0))
        accepted += timings.get("draft_n_accepted", performance.get("accepted_draft_tokens", 0))
        checks += performance.get("draft_steps", 0)
    return drafted, accepted, checks


def _cells(scale: Scale) -> list[Cell]:
    count = 8 if scale.quick else TASKS
    return [
        Cell(
            label=f"{slots} slot{'s' if slots > 1 else ''}",
            shape=Shape(
                model=SHIPPED, slots=slots, context=512, threads=scale.threads, speculation=True
            ),
            play=_play(slots, max(count, 8 * slots if slots > 1 else 0)),
        )
        for slots in scale.slots or ((1,) if scale.quick else (1, 8))
    ]


WORKLOAD = Workload(
    name="copying",
    about=f"{TASKS} copying tasks of the shipped model; speculation on, off, the peer's",
    metrics=(
        Metric(name="throughput", unit="tok/s", better="higher"),
        Metric(name="total", unit="s", better="lower"),
        Metric(name="drafted_share", unit="1/token", better="lower"),
        Metric(name="drafted_under_load", unit="1/token", better="lower"),
        Metric(name="accepted_share", unit="1/token", better="higher"),
        Metric(name="accepted_per_check", unit="tokens", better="higher"),
    ),
    cells=_cells,
    sides=(OURS, f"{OURS} --speculation off", PEER, f"{PEER}, ngram-mod: {PEER} {LOOKUP}"),
)
