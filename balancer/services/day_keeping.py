"""Keeps what everybody had of their days' limits, so that a restart gives nobody a new day."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from balancer.errors import SettingError, StoreFailed
from balancer.policy.limits.amounts import Moment
from balancer.policy.limits.day import DayCount
from balancer.policy.limits.ledger import Ledger
from balancer.storage.days import DayStore

log = structlog.get_logger(__name__)

INTERVAL_S = 5.0
"""What was had since is forgotten when the balancer is killed."""
MOST_AT_ONCE = 1000
"""Counts of one round: about a millisecond of the event loop."""


class DayKeeping:
    """One loop: every few seconds what has changed is written. `begin` before anybody is counted,
    `end` when nobody is any more."""

    def __init__(
        self,
        ledger: Ledger,
        store: DayStore,
        *,
        now: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._now = now
        self._wall_clock = wall_clock
        self._unsaved: list[DayCount] = []
        """What could not be written."""

    async def begin(self) -> None:
        """Go on with the day as it was. Raises `SettingError` where that cannot be read."""
        at = self._moment()
        try:
            counts = await self._store.load(at.day)
        except StoreFailed as error:
            raise SettingError(f"data_dir: {error}") from error
        self._ledger.take_days(counts, at)
        if counts:
            log.info("limits go on where they were", subjects=len(counts))

    async def run(self) -> None:
        """For ever; cancel to stop."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            try:
                await self.keep()
            except Exception:  # the task's outermost edge: counts must not end the balancer
                log.exception("days' limits are not kept")

    async def keep(self) -> bool:
        """Write some of what has changed; whether there was anything and it was written. What
        could not be is tried again the next time."""
        at = self._moment()
        counts = self._unsaved or self._ledger.changed_days(at, most=MOST_AT_ONCE)
        if not counts:
            return False
        is_first_time, self._unsaved = not self._unsaved, counts
        try:
            await self._store.save(counts, today=at.day)
        except StoreFailed as error:
            if is_first_time:
                log.warning("days' limits are not kept", reason=str(error))
            return False
        self._unsaved = []
        return True

    async def end(self) -> None:
        """Write the last, and let go of the file."""
        try:
            while await self.keep():
                pass
        finally:
            await self._store.close()

    def _moment(self) -> Moment:
        return Moment(self._now(), self._wall_clock())
