"""What a comparison found, and the table of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Vectors = NDArray[np.float64]


class Row(Struct, frozen=True, kw_only=True):
    """Answers to one input. `difference` is the largest between ours and theirs, `again` the
    largest between ours and ours to the same request sent once more, `allowed` the bound on both;
    whatever is not a number, and has to be equal, is in `unequal` where it is not."""

    feature: str
    given: str
    compared: str
    difference: float
    again: float
    allowed: float
    unequal: str = ""

    @property
    def is_good(self) -> bool:
        """Equal within rounding."""
        return not self.unequal and max(self.difference, self.again) <= self.allowed


def largest_difference(one: Sequence[Vectors], other: Sequence[Vectors]) -> float:
    """Over all numbers; infinite where the shapes differ."""
    if [vectors.shape for vectors in one] != [vectors.shape for vectors in other]:
        return float("inf")
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))


def least_cosine(one: Sequence[Vectors], other: Sequence[Vectors]) -> float:
    """Over all pairs of vectors [vectors, width]; 0 where the shapes differ."""
    if [vectors.shape for vectors in one] != [vectors.shape for vectors in other]:
        return 0.0
    a, b = np.concatenate(one), np.concatenate(other)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / lengths).min())


def table(rows: Iterable[Row]) -> str:
    """One line a comparison."""
    lines = [("feature", "input", "compared", "largest difference", "sent again", "")]
    lines += [
        (
            row.feature,
            row.given,
            row.compared,
            f"{row.difference:.1e}",
            f"{row.again:.1e}",
            "" if row.is_good else row.unequal or f"more than {row.allowed:.0e}",
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
