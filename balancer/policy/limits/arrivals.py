"""Arrivals of the last minute, each of them: an exact sliding log. Pure.

A fixed window lets twice its limit through around its edge, and a bucket that refills lets through
more than the limit in some minute. The log does neither, and is as long as the limit at most.
"""

from __future__ import annotations

from array import array

from balancer.policy.limits.amounts import MINUTE_S, SECOND_S, Standing

_SHORT = 64
"""Entries that are not worth moving."""


class Arrivals:
    """When requests came, of the last minute."""

    __slots__ = ("_first", "_times_s")

    def __init__(self) -> None:
        self._times_s = array("d")  # 8 bytes each, where a deque of floats takes 32
        self._first = 0

    def __len__(self) -> int:
        return len(self._times_s) - self._first

    def forget(self, now_s: float) -> None:
        """Drop what is a minute old."""
        times_s, first, count = self._times_s, self._first, len(self._times_s)
        past_s = now_s - MINUTE_S
        if first == count or times_s[first] > past_s:
            return
        while first < count and times_s[first] <= past_s:
            first += 1
        if first > _SHORT and first * 2 > count:
            del times_s[:first]
            first = 0
        self._first = first

    def wait_s(self, now_s: float, limit: int) -> float | None:
        """Seconds until one more may come by the minute's limit; None: now. Ask after `forget`."""
        if len(self) < limit:
            return None
        return MINUTE_S if limit == 0 else self._times_s[-limit] + MINUTE_S - now_s

    def burst_wait_s(self, now_s: float, burst: int) -> float | None:
        """Likewise by the second's limit."""
        if len(self) < burst:
            return None
        if burst == 0:
            return SECOND_S
        latest_s = self._times_s[-burst]
        return None if latest_s <= now_s - SECOND_S else latest_s + SECOND_S - now_s

    def note(self, now_s: float) -> None:
        """One came, and was let in."""
        self._times_s.append(now_s)

    def standing(self, now_s: float, limit: int) -> Standing:
        """Ask after `forget`."""
        count = len(self)
        newest_s = self._times_s[-1] if count else now_s - MINUTE_S
        return Standing(limit, max(limit - count, 0), newest_s + MINUTE_S - now_s)
