"""Embeddings of many texts: several inputs a request, a few requests open at a time."""

from __future__ import annotations

import random
import statistics
from collections.abc import Awaitable, Callable

from tests.benchmarks.peers.exchange import Answer, Unusable
from tests.benchmarks.peers.sides import Shape
from tests.benchmarks.peers.target import Target, in_order
from tests.benchmarks.peers.workload import Cell, Metric, Played, Scale, Workload
from tests.support.random_gguf import prompt_tokens

INPUTS, TOKENS, REQUESTS, IN_FLIGHT, SLOTS = 16, 64, 12, 2, 4


def _play(requests: int) -> Callable[[Target, random.Random], Awaitable[Played]]:
    async def play(target: Target, dice: random.Random) -> Played:
        batches = [[prompt_tokens(dice, TOKENS) for _ in range(INPUTS)] for _ in range(requests)]
        answers = await in_order([target.embed(batch) for batch in batches], IN_FLIGHT)
        ends = [_ended_at(answer) for answer in answers]
        elapsed = max(ends) - min(answer.sent_at for answer in answers)
        waits = [end - a.sent_at for end, a in zip(ends, answers, strict=True)]
        return Played(
            metrics={
                "inputs": requests * INPUTS / elapsed,
                "request_p50": 1000 * statistics.median(waits),
            }
        )

    return play


def _ended_at(answer: Answer) -> float:
    """When the embeddings came; `Unusable` unless there is one for each input."""
    at, document = answer.documents[-1]
    count = len(document.get("data", ()))
    if count != INPUTS:
        raise Unusable(f"asked for {INPUTS} embeddings and got {count}")
    return at


def _cells(scale: Scale) -> list[Cell]:
    shape = Shape(
        model=scale.model_path(),
        slots=SLOTS,
        context=512,
        threads=scale.threads,
        embeddings=True,
    )
    return [
        Cell(
            label=f"{INPUTS} x {TOKENS} tokens",
            shape=shape,
            play=_play(4 if scale.quick else REQUESTS),
        )
    ]


WORKLOAD = Workload(
    name="embeddings",
    about=f"{REQUESTS} requests of {INPUTS} inputs of {TOKENS} tokens, {IN_FLIGHT} open",
    metrics=(
        Metric(name="inputs", unit="1/s", better="higher"),
        Metric(name="request_p50", unit="ms", better="lower"),
    ),
    cells=_cells,
)
