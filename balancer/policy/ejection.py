"""Whether an agent that fails its calls is given more of them. Pure.

One that fails fast looks idle, and would get everything. After a few failures in a row it is left
out for a while, twice as long each time; then a single call tries it, and if that goes well its
share grows back slowly.

    well -> (failures in a row) -> ejected -> (time) -> on probation -> (a success) -> slow start
                                      ^------------------------'  (a failure)

Refusals for want of room are no failures, and what a client caused is none either.
"""

from __future__ import annotations

from math import ceil

FAILURES_IN_A_ROW = 3
FIRST_EJECTION_S = 5.0
LONGEST_EJECTION_S = 60.0
SLOW_START_S = 10.0
SAME_DEATH_S = 0.5
"""Deaths of an engine this close behind each other are one: it ended all of its calls."""


class Health:
    """One agent's record. Times are of any one clock, in seconds."""

    def __init__(self) -> None:
        self._failures = 0
        self._last_death_s = float("-inf")
        self._ejection_s = FIRST_EJECTION_S
        self._ejected_until_s: float | None = None
        self._slow_since_s: float | None = None
        self.is_well = True
        """Whether nothing holds it back; then `most_calls` need not be asked."""

    @property
    def has_failed(self) -> bool:
        """Whether its last call failed."""
        return self._failures > 0

    def ejected_until(self, now: float) -> float | None:
        """Until when it is left out; None: it is not."""
        until = self._ejected_until_s
        return until if until is not None and now < until else None

    def most_calls(self, slots: int, now: float) -> int:
        """How many calls it may have at once, of as many as it has slots."""
        if self._ejected_until_s is not None:
            return 0 if now < self._ejected_until_s else min(1, slots)
        if self._slow_since_s is None:
            return slots
        grown = (now - self._slow_since_s) / SLOW_START_S
        if grown >= 1.0:
            self._recover()
            return slots
        return min(slots, max(1, ceil(grown * slots)))

    def failed(self, now: float) -> bool:
        """A call failed there, and the agent is to blame; whether it is ejected for it."""
        self._failures += 1
        is_on_probation = self._ejected_until_s is not None or self._slow_since_s is not None
        if self._failures < FAILURES_IN_A_ROW and not is_on_probation:
            return False
        if self._ejected_until_s is not None and now < self._ejected_until_s:
            return False  # a call from before
        if is_on_probation:
            self._ejection_s = min(2 * self._ejection_s, LONGEST_EJECTION_S)
        self._eject(now)
        return True

    def engine_died(self, now: float) -> bool:
        """A call ended with the engine; as `failed`, once for all calls of that engine."""
        is_known = now - self._last_death_s < SAME_DEATH_S
        self._last_death_s = now
        return not is_known and self.failed(now)

    def eject(self, now: float) -> None:
        """Leave it out for other reasons than failed calls."""
        self._eject(now)

    def succeeded(self, now: float) -> None:
        """A call gave a token there."""
        self._failures = 0
        if self._ejected_until_s is not None and now >= self._ejected_until_s:
            self._ejected_until_s = None
            self._slow_since_s = now

    def _eject(self, now: float) -> None:
        self._failures = 0
        self._ejected_until_s = now + self._ejection_s
        self._slow_since_s = None
        self.is_well = False

    def _recover(self) -> None:
        self._slow_since_s = None
        self.is_well = True
        self._ejection_s = FIRST_EJECTION_S
