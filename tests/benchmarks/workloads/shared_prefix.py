"""A cold prefix that many requests share and that arrive at once, as after a new system prompt."""

from __future__ import annotations

import random
import statistics

from tests.benchmarks.peers.sides import Shape
from tests.benchmarks.peers.target import Target, at_once, cached_share, elapsed_s, tokens_per_s
from tests.benchmarks.peers.workload import Cell, Metric, Played, Scale, Workload
from tests.support.random_gguf import prompt_tokens

REQUESTS, SHARED, OWN, ANSWER, SLOTS = 16, 1000, 20, 32, 4


async def _play(target: Target, dice: random.Random) -> Played:
    prefix = prompt_tokens(dice, SHARED)
    prompts = [prefix + prompt_tokens(dice, OWN) for _ in range(REQUESTS)]
    answers = await at_once([target.complete(prompt, ANSWER) for prompt in prompts])
    return Played(
        metrics={
            "throughput": tokens_per_s(answers),
            "total": elapsed_s(answers),
            "ttft_p50": 1000 * statistics.median(answer.first_text_s for answer in answers),
            **cached_share(answers),
        }
    )


def _cells(scale: Scale) -> list[Cell]:
    model = scale.model_path()
    return [
        Cell(
            label=f"{slots} slots",
            shape=Shape(model=model, slots=slots, context=2048, threads=scale.threads),
            play=_play,
        )
        for slots in scale.slots or (SLOTS,)
    ]


WORKLOAD = Workload(
    name="shared_prefix",
    about=f"{REQUESTS} requests at once, {SHARED} shared + {OWN} own tokens, {ANSWER} out, cold",
    metrics=(
        Metric(name="throughput", unit="tok/s", better="higher"),
        Metric(name="total", unit="s", better="lower"),
        Metric(name="ttft_p50", unit="ms", better="lower"),
        Metric(name="cached_share", unit="1", better="higher"),
    ),
    cells=_cells,
)
