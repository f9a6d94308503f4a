"""Twelve cold prefixes over few slots, their requests arriving prefix by prefix or interleaved."""

from __future__ import annotations

import random
import statistics
from collections.abc import Awaitable, Callable

from tests.benchmarks.peers.sides import Shape
from tests.benchmarks.peers.target import Target, cached_share, in_order, tokens_per_s
from tests.benchmarks.peers.workload import Cell, Metric, Played, Scale, Workload
from tests.support.random_gguf import prompt_tokens

PREFIXES, REQUESTS, SHARED, OWN, ANSWER, SLOTS = 12, 96, 1000, 20, 32, 4
IN_FLIGHT = 16


def _play(
    prefixes: int, requests: int, *, interleaved: bool
) -> Callable[[Target, random.Random], Awaitable[Played]]:
    async def play(target: Target, dice: random.Random) -> Played:
        texts = [prompt_tokens(dice, SHARED) for _ in range(prefixes)]
        each = requests // prefixes
        order = [n % prefixes if interleaved else n // each for n in range(each * prefixes)]
        prompts = [texts[prefix] + prompt_tokens(dice, OWN) for prefix in order]
        asked = [target.complete(prompt, ANSWER) for prompt in prompts]
        answers = await in_order(asked, IN_FLIGHT)
        return Played(
            metrics={
                "throughput": tokens_per_s(answers),
                "ttft_p50": 1000 * statistics.median(answer.first_text_s for answer in answers),
                **cached_share(answers),
            }
        )

    return play


def _cells(scale: Scale) -> list[Cell]:
    model = scale.model_path()
    prefixes, requests = (6, 24) if scale.quick else (PREFIXES, REQUESTS)
    return [
        Cell(
            label=label,
            shape=Shape(model=model, slots=slots, context=2048, threads=scale.threads),
            play=_play(prefixes, requests, interleaved=label == "interleaved"),
        )
        for slots in scale.slots or (SLOTS,)
        for label in ("prefix by prefix", "interleaved")
    ]


WORKLOAD = Workload(
    name="many_prefixes",
    about=(
        f"{PREFIXES} prefixes of {SHARED}, {REQUESTS} requests with {OWN} own tokens, "
        f"{ANSWER} out, {IN_FLIGHT} open"
    ),
    metrics=(
        Metric(name="throughput", unit="tok/s", better="higher"),
        Metric(name="ttft_p50", unit="ms", better="lower"),
        Metric(name="cached_share", unit="1", better="higher"),
    ),
    cells=_cells,
)
