"""Bounded memory of numbers over time: series for pictures, marks for rates, percentiles. Pure."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from math import inf, isnan, nan
from typing import Generic, TypeVar

from msgspec import Struct

_Reading = TypeVar("_Reading")
Number = int | float | None


class SeriesView(Struct, frozen=True, kw_only=True):
    """Series that end together, a number each `interval_s`; null where nothing was known."""

    interval_s: int
    end: float
    """When the last numbers were taken, in unix seconds."""
    paths: dict[str, list[float | None]]


class SeriesStore:
    """The latest `length` numbers of each of some paths, which are known from the beginning."""

    def __init__(self, paths: Iterable[str], *, interval_s: int = 1, length: int = 600) -> None:
        self._interval_s = interval_s
        self._length = length
        self._end = 0.0
        self._count = 0
        self._rings = {path: array("d", [nan]) * length for path in paths}

    @property
    def paths(self) -> tuple[str, ...]:
        """What is kept."""
        return tuple(self._rings)

    @property
    def length(self) -> int:
        """The most numbers of a series."""
        return self._length

    def add(self, values: Mapping[str, Number], *, at: float) -> None:
        """One number for each path, taken at this unix second. Intervals that were left out stay
        unknown; one that comes early takes the place of the next."""
        steps = max(1, round((at - self._end) / self._interval_s)) if self._count else 1
        for _ in range(min(steps, self._length) - 1):
            self._put({})
        self._put(values)
        self._end = at

    def read(self, paths: Sequence[str] | None = None, *, last: int | None = None) -> SeriesView:
        """The latest numbers of these paths, or of all, oldest first; none from before the first
        were taken. Paths that are not kept are left out."""
        count = self._count if last is None else max(0, min(self._count, last))
        wanted = self._rings if paths is None else paths
        return SeriesView(
            interval_s=self._interval_s,
            end=self._end,
            paths={path: self._latest(path, count) for path in wanted if path in self._rings},
        )

    def _put(self, values: Mapping[str, Number]) -> None:
        for path, ring in self._rings.items():
            value = values.get(path)
            ring.append(nan if value is None else value)
            del ring[0]
        self._count = min(self._count + 1, self._length)

    def _latest(self, path: str, count: int) -> list[float | None]:
        ring = self._rings[path]
        return [None if isnan(value) else value for value in ring[self._length - count :]]


class Marks(Generic[_Reading]):
    """Readings of counters, one a second at most, so that what was counted lately is known."""

    def __init__(self, first: _Reading, *, at_s: float, length: int = 61) -> None:
        self._marks: deque[tuple[float, _Reading]] = deque([(at_s, first)], maxlen=length)

    def add(self, reading: _Reading, *, at_s: float) -> None:
        """The oldest is forgotten for it."""
        self._marks.append((at_s, reading))

    def before(self, seconds: float, *, at_s: float) -> _Reading:
        """The oldest reading of the last so many seconds, or the latest there is."""
        for taken_s, reading in self._marks:
            if at_s - taken_s <= seconds:
                return reading
        return self._marks[-1][1]

    def about(self, seconds: float, *, at_s: float) -> tuple[float, _Reading]:
        """The reading whose age is nearest to so many seconds, and its age."""
        taken_s, reading = min(self._marks, key=lambda mark: abs(at_s - mark[0] - seconds))
        return at_s - taken_s, reading


def quantile(q: float, bounds: Sequence[float], counts: Sequence[float]) -> float | None:
    """The value that a share `q` of what was observed does not pass, by a histogram: the upper
    bounds of its buckets, the last one infinite, and how much fell into each. Within a bucket all
    is taken to lie evenly, and what lies above all bounds at the highest, as Prometheus has it;
    None: nothing was observed."""
    total = sum(counts)
    if total <= 0:
        return None
    rank, below, lower = max(q * total, 0.0), 0.0, 0.0
    for upper, count in zip(bounds, counts, strict=True):
        if count and below + count >= rank:
            return lower if upper == inf else lower + (upper - lower) * (rank - below) / count
        below += count
        lower = lower if upper == inf else upper
    return lower


def share(part: float, whole: float, digits: int = 4) -> float | None:
    """Part of a whole; None of nothing."""
    return round(part / whole, digits) if whole > 0 else None


def rate(before: float, now: float, *, seconds: float) -> float:
    """What was counted in a second, to three digits; a counter that began anew counted nothing."""
    return round(max(now - before, 0.0) / seconds, 3)
