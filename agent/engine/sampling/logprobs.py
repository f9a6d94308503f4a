"""Log-probabilities for those who ask: the model's own, before any sampling setting."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, log

import numpy as np

from agent.engine.sampling.draws import Floats
from protocol.generation import TokenLogprob, TopLogprob

IMPOSSIBLE = -9999.0
"""The log-probability that stands for none, as in OpenAI's API: JSON knows no infinity."""


def logprobs_of(
    row: Floats, token: int, top: int, pieces: Sequence[bytes], out: Floats | None = None
) -> TokenLogprob:
    """The chosen token's natural-log probability and the `top` likeliest; `out` is room for a row.

    Equally likely ones come in the order of their ids.
    """
    ids = [token, *_likeliest(row, min(top, len(row)))]
    logprobs = _logprobs(row, ids, out)
    entries = [
        TopLogprob(one, pieces[one].decode("latin-1"), logprob)
        for one, logprob in zip(ids, logprobs, strict=True)
    ]
    chosen = entries[0]
    return TokenLogprob(chosen.token_id, chosen.piece, chosen.logprob, tuple(entries[1:]))


def _likeliest(row: Floats, count: int) -> list[int]:
    if not count:
        return []
    if count == 1:
        return [int(row.argmax())]
    ids = np.sort(np.argpartition(row, len(row) - count)[len(row) - count :])
    likeliest: list[int] = ids[np.argsort(-row[ids], kind="stable")].tolist()
    return likeliest


def _logprobs(row: Floats, ids: list[int], out: Floats | None) -> list[float]:
    best = float(row.max())
    if not isfinite(best):
        return [IMPOSSIBLE] * len(ids)
    weights = np.subtract(row, np.float32(best), out=None if out is None else out[: len(row)])
    norm = best + log(float(np.exp(weights, out=weights).sum()))
    return [max(float(logit) - norm, IMPOSSIBLE) for logit in row[ids]]
