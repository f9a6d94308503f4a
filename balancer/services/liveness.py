"""Closes the links of agents that fell silent, notices those that are slow to confirm, and lets
those that failed be tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from balancer.fleet.roster import Roster

_CHECKS_PER_HEARTBEAT = 5
"""So that silence is noticed at most a fifth of a heartbeat late."""
_LONGEST_PAUSE_S = 1.0
"""Agents that come may be told a shorter interval than those that were there."""


class Liveness:
    """One loop for one roster; `also` is called with each check."""

    def __init__(self, roster: Roster, *, also: Callable[[], None] = lambda: None) -> None:
        self._roster = roster
        self._also = also

    async def run(self) -> None:
        """Check for ever; cancel to stop.

        When this process itself stood still, the agents' heartbeats lie unread in its sockets: they
        are read before anybody is judged.
        """
        clock = asyncio.get_running_loop().time
        while True:
            heartbeat_s = self._roster.shortest_interval_s
            interval_s = min(heartbeat_s / _CHECKS_PER_HEARTBEAT, _LONGEST_PAUSE_S)
            due_s = clock() + interval_s
            await asyncio.sleep(interval_s)
            if clock() - due_s < heartbeat_s:
                self.check()

    def check(self) -> None:
        """One round, by the roster's own clock."""
        for link in self._roster.silent_links():
            silence = "no heartbeat" if link.is_registered else "no `register`"
            link.close(f"{silence} for too long")
        self._roster.notice_slow_confirmations()
        self._roster.take_back_ejected()
        self._also()
