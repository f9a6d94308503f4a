"""How close a draw was to falling on another token."""

from __future__ import annotations

import numpy as np

from agent.engine.llama.arrays import Ints
from agent.engine.sampling.draws import uniform
from tests.support.engine_bench import EngineBench


def distance_to_border(
    bench: EngineBench, tokens: Ints, *, position: int, seed: int, temperature: float
) -> float:
    """Between the number drawn behind these tokens and the nearest border of two tokens' shares.

    For plain sampling: a temperature and no filters. Shares are of 1.
    """
    context = bench.context
    batch = context.batch
    for start in range(0, len(tokens), context.batch_tokens):
        chunk = tokens[start : start + context.batch_tokens]
        batch.clear()
        batch.add_prompt(chunk, start, 0, output=True)
        assert context.decode() == 0
    row = context.logits()[0].astype(np.float64)
    context.memory.forget(0)
    shares = np.exp((row - row.max()) / temperature)
    borders = shares.cumsum() / shares.sum()
    return float(np.abs(borders - uniform(seed, position)).min())
