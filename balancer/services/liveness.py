"""Closes the links of agents that fell silent, and notices those that are slow to confirm."""

from __future__ import annotations

import asyncio

from balancer.fleet.roster import Roster
from balancer.settings import Settings

_CHECKS_PER_HEARTBEAT = 5
"""So that silence is noticed at most a fifth of a heartbeat late."""


class Liveness:
    """One loop for one roster."""

    def __init__(self, roster: Roster, settings: Settings) -> None:
        self._roster = roster
        self._interval_s = settings.heartbeat_interval_s / _CHECKS_PER_HEARTBEAT

    async def run(self) -> None:
        """Check for ever; cancel to stop."""
        while True:
            self.check()
            await asyncio.sleep(self._interval_s)

    def check(self) -> None:
        """One round, by the roster's own clock."""
        for link in self._roster.silent_links():
            silence = "no heartbeat" if link.is_registered else "no `register`"
            link.close(f"{silence} for too long")
        self._roster.notice_slow_confirmations()
