"""Mirostat 1 and 2 (Basu et al. 2020, arXiv:2007.14966): keep the surprise of a text near a target.

Ours, because llama.cpp's draw from a generator with a memory of its own. The one number that is
carried from token to token, `mu` (bits), depends on the model's logits: it cannot be rebuilt from
tokens and has to travel with them. Surprise is of the cut and renormalised distribution, as in
llama.cpp. Both take temperature first and replace top_k, top_p, min_p, typical_p and XTC.
"""

from __future__ import annotations

from math import exp, isfinite, log, log2

import numpy as np

from agent.engine.sampling.cuts import Ids, best_k
from agent.engine.sampling.draws import Floats, index_at, weights_of

_ESTIMATED_FROM = 100
"""The likeliest tokens from which version 1 estimates Zipf's exponent."""


class Mirostat:
    """One call's target. `draw` changes nothing: what it says of `mu` is taken by `accept`."""

    def __init__(self, version: int, tau: float, eta: float) -> None:
        self._version = version
        self._tau = tau
        self._eta = eta
        self._drawn: tuple[int, float] | None = None
        self.mu = 2 * tau

    def draw(self, row: Floats, temperature: float, number: float, work: Floats) -> int:
        """The token that `number` in [0, 1) falls on among those not too surprising."""
        if self._version == 1:
            ids = best_k(row, self._count(row, temperature, work), work)
            weights = weights_of(row[ids], temperature)
        else:
            everything = weights_of(row, temperature, work[0])
            ids = self._unsurprising(everything)
            weights = everything[ids]
        index = index_at(weights, number)
        surprise = log2(float(weights.sum(dtype=np.float64)) / float(weights[index]))
        token = int(ids[index])
        self._drawn = token, self.mu - self._eta * (surprise - self._tau)
        return token

    def accept(self, token: int) -> None:
        """The token was chosen; one that was not drawn here tells nothing of its surprise."""
        if self._drawn is not None and self._drawn[0] == token:
            self.mu = self._drawn[1]
        self._drawn = None

    def _unsurprising(self, weights: Floats) -> Ids:
        """Version 2: tokens of a surprise up to mu, at least the best one."""
        limit = float(weights.sum()) * 2.0 ** min(-self.mu, 64.0)
        ids = np.flatnonzero(weights >= min(limit, 1.0))
        return ids[weights[ids] > 0]

    def _count(self, row: Floats, temperature: float, work: Floats) -> int:
        """Version 1: how many of the likeliest, by Zipf's law fitted to the very likeliest."""
        logits = row[best_k(row, _ESTIMATED_FROM, work)].astype(np.float64) / temperature
        logits[::-1].sort()
        ranks = np.arange(1, len(logits))
        steps = np.log((ranks + 1) / ranks)
        falls = logits[:-1] - logits[1:]
        if not falls.any():
            return len(row)
        exponent = float((steps * falls).sum() / (steps * steps).sum())
        return _zipf_count(exponent, self.mu, len(row))


def _zipf_count(exponent: float, mu: float, vocabulary_size: int) -> int:
    """The ranks whose surprise stays up to `mu` bits under Zipf's law; 1 to the vocabulary."""
    epsilon = exponent - 1
    if abs(epsilon) < 1e-9:
        factor = 1 / log(vocabulary_size)
    else:
        spread = -epsilon * log(vocabulary_size)
        factor = epsilon / (1 - exp(spread)) if spread < 700 else 0.0
    if factor <= 0:
        return vocabulary_size
    ranks = (log(factor) + mu * log(2)) / exponent
    if not isfinite(ranks) or ranks >= log(vocabulary_size):
        return vocabulary_size
    return max(int(exp(ranks)), 1)
