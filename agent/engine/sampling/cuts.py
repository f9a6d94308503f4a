"""The filters over a whole vocabulary: top_k, min_p, top_p, typical_p. Pure; ids are in order.

llama.cpp has them all, and on few candidates its chain is as fast. On a whole vocabulary it sorts:
5 to 18 ms a token for top_p and 9 to 30 for typical_p at 131k. Here most often few are looked at.
The sets are llama.cpp's; of equals at a border the smaller ids stay.

`work` is room for three rows as long as the vocabulary; its content is lost.
"""

from __future__ import annotations

from math import log

import numpy as np
from numpy.typing import NDArray

from agent.engine.sampling.draws import Floats, index_at

Ids = NDArray[np.intp]

_REACHES = (3.0, 6.0, 9.0)
"""Logits within these distances of the best one are tried first for a nucleus."""
_SURPRISES = (0.25, 1.0, 4.0)
"""Surprises within these distances of the entropy (nats) are tried first as typical."""
_MANY = 8
"""More than the vocabulary's part by this are not worth picking out."""
_FLOOR = np.float32(-1e4)
"""Stands for -inf where 0 * log 0 must be 0."""
_ROUNDING = 1e-9
"""Far below float32's: a share that is reached exactly is reached."""


def best_k(row: Floats, k: int, work: Floats) -> Ids:
    """The `k` largest logits of those that are possible at all."""
    if k >= len(row):
        return np.flatnonzero(row > -np.inf)
    values = work[0, : len(row)]
    np.copyto(values, row)
    values.partition(len(row) - k)
    return _at_least(row, values[len(row) - k], k)


def above_min_p(row: Floats, min_p: float) -> Ids:
    """Tokens at least `min_p` times as probable as the best one."""
    return np.flatnonzero(row >= row.max() + np.float32(log(min_p)))


def nucleus(row: Floats, top_p: float, work: Floats) -> Ids:
    """The fewest likeliest tokens that hold `top_p` of the probability."""
    best = row.max()
    weights = np.subtract(row, best, out=work[0, : len(row)])
    np.exp(weights, out=weights)
    wanted = top_p * float(weights.sum())
    for reach in _REACHES:
        is_near = row >= best - np.float32(reach)
        if np.count_nonzero(is_near) * _MANY > len(row):
            break
        ids = np.flatnonzero(is_near)
        held = float(weights[ids].sum())
        if held >= wanted:
            return ids[_likeliest(row[ids], wanted / held, work)]
    return _likeliest(row, top_p, work)


def _likeliest(logits: Floats, share: float, work: Floats) -> Ids:
    """The fewest that hold a share of the weight: only values are sorted, with SIMD, no indices."""
    values, weights = work[1, : len(logits)], work[2, : len(logits)]
    np.negative(logits, out=values)
    values.sort()
    np.exp(np.subtract(values[0], values, out=weights), out=weights)
    count = _needed(weights, share)
    return _at_least(logits, -values[count - 1], count)


def typical(row: Floats, typical_p: float, work: Floats) -> Ids:
    """The fewest tokens that hold `typical_p`, those first whose surprise is nearest the entropy.

    Locally typical sampling, Meister et al. 2022 (arXiv:2202.00666).
    """
    logs, weights, spare = work[:, : len(row)]
    np.maximum(np.subtract(row, row.max(), out=logs), _FLOOR, out=logs)
    np.exp(logs, out=weights)
    total = float(weights.sum())
    # entropy = log Z - sum p log w; a token's surprise is log Z - log w: log Z falls out
    mean = np.float32(float(np.multiply(weights, logs, out=spare).sum()) / total)
    distances = np.abs(np.subtract(logs, mean, out=logs), out=logs)
    for reach in _SURPRISES:
        is_near = distances <= np.float32(reach)
        if np.count_nonzero(is_near) * _MANY > len(row):
            break
        ids = np.flatnonzero(is_near)
        near = weights[ids]
        held = float(near.sum())
        if held > 0 and held >= typical_p * total:
            return ids[_nearest(distances[ids], near, typical_p * total / held)]
    return _nearest(distances, weights, typical_p)


def _nearest(distances: Floats, weights: Floats, share: float) -> Ids:
    order = np.argsort(distances)
    count = _needed(weights[order], share)
    return _at_least(-distances, -distances[order[count - 1]], count)


def _needed(weights: Floats, share: float) -> int:
    """How many of the first weights reach a share of the whole."""
    return index_at(weights, max(share - _ROUNDING, 0.0)) + 1


def _at_least(row: Floats, border: np.float32, count: int) -> Ids:
    """The `count` largest, given the least of them."""
    if border == -np.inf:
        return np.flatnonzero(row > border)
    ids = np.flatnonzero(row >= border)
    if len(ids) > count:
        equal = np.flatnonzero(row[ids] == border)
        ids = np.delete(ids, equal[len(equal) - (len(ids) - count) :])
    return ids
