"""XTC, "exclude top choices": sometimes, drop all of the probable tokens but the least probable.

Ours, because llama.cpp's draws from a generator with a memory of its own. Whether it acts at a
position is decided by the position's number in a stream of its own.
"""

from __future__ import annotations

import numpy as np

from agent.engine.sampling.draws import EXCLUSION, Floats, uniform, weights_of


def acts(probability: float, seed: int, position: int) -> bool:
    """Whether tokens are excluded at this position."""
    return probability > 0 and uniform(seed, position, EXCLUSION) < probability


def exclude_top_choices(logits: Floats, threshold: float, out: Floats | None = None) -> None:
    """Make all tokens of probability `threshold` and more impossible, except the last of them.

    Changes `logits`. Of equally probable ones the greatest id stays. `out` is room for weights.
    """
    weights = weights_of(logits, out=out)
    top = np.flatnonzero(weights >= threshold * float(weights.sum()))
    if len(top) > 1:
        last = len(top) - 1 - int(logits[top][::-1].argmin())
        logits[np.delete(top, last)] = -np.inf
