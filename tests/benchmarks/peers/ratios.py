"""What many paired rounds say together: geometric means with 95 % intervals over fresh starts.

A start of a server can be several percent off for its whole life (where its memory landed), while
rounds within a start agree to about one percent. So the starts are the sample: the logarithms are
averaged within each start, and the interval is Student's over those averages.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# two-sided 95 % quantiles of Student's t by degrees of freedom
STUDENT_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
)  # fmt: skip
NORMAL = 1.960


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A geometric mean; `low` and `high` bound it at 95 %, None with a single start."""

    mean: float
    median: float
    """Of all rounds, whatever their start."""
    low: float | None
    high: float | None
    starts: int
    rounds: int


def estimate(by_start: Sequence[Sequence[float]]) -> Estimate | None:
    """The estimate from positive values, one sequence for each start; None without any value."""
    kept = [values for values in by_start if values]
    if not kept or any(value <= 0 for values in kept for value in values):
        return None
    logarithms = [statistics.fmean(map(math.log, values)) for values in kept]
    mean = statistics.fmean(logarithms)
    half = _half_width(logarithms)
    return Estimate(
        mean=math.exp(mean),
        median=statistics.median(value for values in kept for value in values),
        low=None if half is None else math.exp(mean - half),
        high=None if half is None else math.exp(mean + half),
        starts=len(kept),
        rounds=sum(map(len, kept)),
    )


def paired_ratios(
    ours: Mapping[tuple[int, int], float], theirs: Mapping[tuple[int, int], float]
) -> dict[int, list[float]]:
    """Ratios of the rounds that both played, by start. Keys are (start, pair)."""
    ratios: dict[int, list[float]] = {}
    for start, pair in sorted(ours.keys() & theirs.keys()):
        if theirs[start, pair] > 0:
            ratios.setdefault(start, []).append(ours[start, pair] / theirs[start, pair])
    return ratios


def over_cells(cells: Sequence[Mapping[int, Sequence[float]]]) -> Estimate | None:
    """The mean over cells: within each start first over its cells, then over starts.

    Only starts that every cell has count, so that no cell weighs more than another.
    """
    shared = set.intersection(*(set(cell) for cell in cells)) if cells else set()
    by_start = [
        [math.exp(statistics.fmean(map(math.log, cell[start]))) for cell in cells]
        for start in sorted(shared)
    ]
    return estimate(by_start)


def _half_width(logarithms: Sequence[float]) -> float | None:
    if len(logarithms) < 2:
        return None
    freedom = len(logarithms) - 1
    quantile = STUDENT_T[freedom - 1] if freedom <= len(STUDENT_T) else NORMAL
    return quantile * statistics.stdev(logarithms) / math.sqrt(len(logarithms))
