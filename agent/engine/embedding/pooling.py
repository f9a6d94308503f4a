"""From token vectors to an input's own: gather, pool, truncate, normalise. Pure numpy.

Pooling here instead of inside llama.cpp lets one context serve every kind, and lets an input be
decoded in pieces: llama.cpp pools what one micro-batch holds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from protocol.embeddings import Pooling

Floats = NDArray[np.float32]

SCALED: frozenset[Pooling] = frozenset({"none", "mean", "cls", "last"})
"""Scores mean what they are: no length is taken from them."""


class Pool:
    """One input's vectors while it is decoded."""

    def __init__(self, pooling: Pooling) -> None:
        self._pooling = pooling
        self._count = 0
        self._sum: NDArray[np.float64] | None = None
        self._rows: list[Floats] = []

    def add(self, rows: Floats) -> None:
        """Take the rows of the next tokens; they are copied."""
        self._count += len(rows)
        match self._pooling:
            case "none":
                self._rows.append(rows.copy())
            case "mean":
                part = rows.sum(axis=0, dtype=np.float64)
                self._sum = part if self._sum is None else self._sum + part
            case "cls":
                if not self._rows:
                    self._rows = [rows[:1].copy()]
            case "last" | "rank":
                self._rows = [rows[-1:].copy()]

    def vectors(self) -> Floats:
        """What the tokens so far give [vectors, width]; there must be some."""
        if self._sum is not None:
            mean: Floats = (self._sum / self._count).astype(np.float32)[np.newaxis]
            return mean
        return np.concatenate(self._rows)


def finished(vectors: Floats, *, dimensions: int | None, normalize: bool) -> Floats:
    """The first `dimensions` of each vector, then scaled to length 1; zeros stay what they are."""
    if dimensions is not None:
        vectors = vectors[:, :dimensions]
    if normalize:
        # float64: squares of float32 may overflow
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
        vectors = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return np.ascontiguousarray(vectors, dtype="<f4")
