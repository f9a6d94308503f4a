"""Throughput of a busy server: short prompts, as many clients as slots, each asking in turn."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

from tests.benchmarks.peers.sides import Shape
from tests.benchmarks.peers.target import Target, in_order, tokens_per_s
from tests.benchmarks.peers.workload import Cell, Metric, Played, Scale, Workload
from tests.support.random_gguf import prompt_tokens

PROMPT, ANSWER = 128, 128
REQUESTS_PER_SLOT = 3


def _play(slots: int, per_slot: int) -> Callable[[Target, random.Random], Awaitable[Played]]:
    async def play(target: Target, dice: random.Random) -> Played:
        prompts = [prompt_tokens(dice, PROMPT) for _ in range(slots * per_slot)]
        requests = [target.complete(prompt, ANSWER) for prompt in prompts]
        return Played(metrics={"throughput": tokens_per_s(await in_order(requests, slots))})

    return play


def _cells(scale: Scale) -> list[Cell]:
    counts = scale.slots or ((4,) if scale.quick else (1, 2, 4, 8, 16))
    per_slot = 1 if scale.quick else REQUESTS_PER_SLOT
    model = scale.model_path()
    return [
        Cell(
            label=f"{slots} slot{'s' if slots > 1 else ''}",
            shape=Shape(model=model, slots=slots, context=512, threads=scale.threads),
            play=_play(slots, per_slot),
        )
        for slots in counts
    ]


WORKLOAD = Workload(
    name="decode",
    about=f"{PROMPT} tokens in, {ANSWER} out, {REQUESTS_PER_SLOT} requests a slot, all slots busy",
    metrics=(Metric(name="throughput", unit="tok/s", better="higher"),),
    cells=_cells,
)
