"""How many requests were answered in the last minute, and how fast: what /health reports."""

from __future__ import annotations

from msgspec import Struct

WINDOW_S = 60


class Rate(Struct, frozen=True, kw_only=True):
    """Over the last minute; zeros without requests."""

    avg_response_time_ms: float
    requests_per_second: float


class Traffic:
    """A ring of one bucket a second: constant memory, whatever comes."""

    def __init__(self) -> None:
        self._seconds = [-1] * WINDOW_S
        self._counts = [0] * WINDOW_S
        self._sums_s = [0.0] * WINDOW_S

    def note(self, *, now_s: float, took_s: float) -> None:
        """Count one answered request."""
        second = int(now_s)
        index = second % WINDOW_S
        if self._seconds[index] != second:
            self._seconds[index] = second
            self._counts[index] = 0
            self._sums_s[index] = 0.0
        self._counts[index] += 1
        self._sums_s[index] += took_s

    def rate(self, *, now_s: float) -> Rate:
        """The last minute's rate."""
        recent = [i for i in range(WINDOW_S) if now_s - self._seconds[i] < WINDOW_S]
        count = sum(self._counts[i] for i in recent)
        total_s = sum(self._sums_s[i] for i in recent)
        return Rate(
            avg_response_time_ms=round(1000 * total_s / count, 3) if count else 0.0,
            requests_per_second=round(count / WINDOW_S, 3),
        )
