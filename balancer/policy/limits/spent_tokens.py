"""Tokens of the last minute, and those that are promised. Pure.

What is promised (`reserve`) counts as if it were spent, until it is settled to what was. As that is
never more than was promised, no minute ever has more spent tokens than the limit, however many
requests run at once.
"""

from __future__ import annotations

from collections import deque

from balancer.policy.limits.amounts import MINUTE_S, Standing

GRAIN_S = 0.01
"""Tokens that are settled so soon after others are counted with them, as of the later time: the
bound holds, and a minute has at most `MINUTE_S / GRAIN_S` entries."""


class SpentTokens:
    """Settled tokens of the last minute by time, and the sum of those that are reserved."""

    __slots__ = ("_entries", "_spent", "reserved")

    def __init__(self) -> None:
        self._entries: deque[list[float]] = deque()
        """First and last time, and tokens."""
        self._spent = 0
        self.reserved = 0

    @property
    def is_empty(self) -> bool:
        """Whether forgetting it would change nothing."""
        return not self._entries and not self.reserved

    def forget(self, now_s: float) -> None:
        """Drop what is a minute old."""
        entries = self._entries
        while entries and entries[0][1] <= now_s - MINUTE_S:
            self._spent -= int(entries.popleft()[2])

    def left(self, limit: int) -> int:
        """Tokens that may still be promised. Ask after `forget`."""
        return max(limit - self._spent - self.reserved, 0)

    def wait_s(self, now_s: float, *, tokens: int, limit: int) -> float | None:
        """Seconds until so many may be promised, if nothing that is reserved now is settled to
        less; a minute where only that can help. None: they may be now. Ask after `forget`."""
        missing = self._spent + self.reserved + tokens - limit
        if missing <= 0:
            return None
        for _, latest_s, spent in self._entries:
            missing -= int(spent)
            if missing <= 0:
                return latest_s + MINUTE_S - now_s
        return MINUTE_S

    def settle(self, now_s: float, *, reserved: int, spent: int) -> None:
        """What was reserved is over; so many tokens were spent, now."""
        self.reserved -= reserved
        if not spent:
            return
        self._spent += spent
        entries = self._entries
        if entries and now_s - entries[-1][0] < GRAIN_S:
            entries[-1][1] = now_s
            entries[-1][2] += spent
        else:
            entries.append([now_s, now_s, spent])

    def standing(self, now_s: float, limit: int) -> Standing:
        """Ask after `forget`."""
        reset_s = MINUTE_S if self.reserved else 0.0
        if self._entries:
            reset_s = max(reset_s, self._entries[-1][1] + MINUTE_S - now_s)
        return Standing(limit, self.left(limit), reset_s)
