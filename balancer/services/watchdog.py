"""Tells the service manager how the balancer is: ready, well, stopping, and what it does.

The event loop that serves is the one that says so: while it is stuck, nothing is said, and systemd
starts the balancer anew when `WatchdogSec` is over.
"""

from __future__ import annotations

import asyncio

from balancer.config_file.configuration import Configuration
from balancer.dispatch.dispatcher import Dispatcher
from balancer.fleet.roster import Roster
from protocol.service_manager import ServiceManager

LONGEST_BEAT_S = 0.5
BEATS_A_WATCH = 4
"""So that two beats may come late before the manager loses its patience."""
EXTENSION_S = 15.0
"""While the balancer drains it asks for so much more time with each beat, since the unit cannot
know `drain_timeout_s`; that setting is what bounds the drain."""


class Watchdog:
    """One loop for one balancer. Start it when the ports are open."""

    def __init__(
        self,
        manager: ServiceManager,
        *,
        roster: Roster,
        dispatcher: Dispatcher,
        configuration: Configuration,
    ) -> None:
        self._manager = manager
        self._roster = roster
        self._dispatcher = dispatcher
        self._configuration = configuration
        self._told = ""
        self._beat_s = min(LONGEST_BEAT_S, (manager.watchdog_s or LONGEST_BEAT_S) / BEATS_A_WATCH)

    async def run(self) -> None:
        """Say so for ever; cancel to stop. Returns at once where no service manager is."""
        if not self._manager.is_there:
            return
        self._manager.say(ready=True, status=self._news())
        while True:
            self._beat()
            await asyncio.sleep(self._beat_s)

    def stopping(self) -> None:
        """The drain begins."""
        self._manager.say(stopping=True, extend_s=EXTENSION_S, status=self._news())

    def _beat(self) -> None:
        extend_s = EXTENSION_S if self._dispatcher.is_draining else 0.0
        self._manager.say(well=True, extend_s=extend_s, status=self._news())

    def _news(self) -> str | None:
        """What people read in `systemctl status`; None if they were told."""
        words = self._words()
        if words == self._told:
            return None
        self._told = words
        return words

    def _words(self) -> str:
        waiting = self._dispatcher.waiting
        work = f"{self._dispatcher.in_flight - waiting} requests run, {waiting} wait"
        if self._dispatcher.is_draining:
            return f"draining: {work}"
        agents = f"agents: {len(tuple(self._roster.agents()))}; {work}"
        faults = self._configuration.last.faults
        return f"{agents}; settings not reloaded: {faults[0]}" if faults else agents
