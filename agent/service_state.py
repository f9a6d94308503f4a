"""What the agent tells the service manager that started it: ready, well, stopping, and its work.

*Ready* is an agent that can be asked: its model is loaded and the balancer has registered it. So
`systemctl restart` of one agent after the other never takes two away at once. Until then it asks
for more time as long as its load goes on or it dials; a balancer that is away is no reason to load
a model again.

*Well* is said by the loop that serves, and only while the engine does what is due. An engine that
stands still is ended by its own watchdog first (`agent.engine.watchdog`), which costs its calls
alone; the manager ends the whole agent where even that did not help, as over a driver that hangs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agent.engine.engine import EngineDoor
from agent.engine.standing import Standing
from protocol.service_manager import ServiceManager

LONGEST_BEAT_S = 0.5
BEATS_A_WATCH = 4
"""So that two beats may come late before the manager loses its patience."""
LEAST_DOUBT_S = 3.0
"""An engine that is late by less is not doubted, whatever its patience."""
EXTENSION_S = 15.0
"""Asked for with each beat, since the unit can know neither how long a load takes nor what
`--drain-timeout` is."""


class ServiceState:
    """One loop for one agent. `work` says in a few words what the agent does, `trouble` why there
    is no link."""

    def __init__(
        self,
        manager: ServiceManager,
        engine: EngineDoor,
        *,
        is_registered: Callable[[], bool],
        trouble: Callable[[], str],
        work: Callable[[], str],
    ) -> None:
        self._manager = manager
        self._engine = engine
        self._is_registered = is_registered
        self._trouble = trouble
        self._work = work
        self._was_ready = False
        self._is_stopping = False
        self._told = ""
        self._beat_s = min(LONGEST_BEAT_S, (manager.watchdog_s or LONGEST_BEAT_S) / BEATS_A_WATCH)

    async def run(self) -> None:
        """Say so for ever; cancel to stop. Returns at once where no service manager is."""
        while self._manager.is_there:
            self._beat()
            await asyncio.sleep(self._beat_s)

    def stopping(self) -> None:
        """The agent begins to end its calls."""
        self._is_stopping = True
        self._manager.say(stopping=True, extend_s=EXTENSION_S, status=self._news())

    def _beat(self) -> None:
        is_well = can_be_trusted(self._engine.standing, self._manager.watchdog_s)
        becomes_ready = (
            not self._was_ready and self._engine.facts is not None and self._is_registered()
        )
        self._was_ready = self._was_ready or becomes_ready
        needs_time = self._is_stopping or (is_well and not self._was_ready)
        self._manager.say(
            ready=becomes_ready,
            well=is_well,
            extend_s=EXTENSION_S if needs_time else 0.0,
            status=self._news(),
        )

    def _news(self) -> str | None:
        """What people read in `systemctl status`; None if they were told."""
        words = self._words()
        if words == self._told:
            return None
        self._told = words
        return words

    def _words(self) -> str:
        standing = self._engine.standing
        words = ["draining"] if self._is_stopping else []
        if standing.phase == "loading":
            words.append(f"loading the model, {standing.loaded:.0%}")
        elif standing.phase == "down":
            words.append("starting the engine again")
        elif standing.silent_s > LEAST_DOUBT_S:
            words.append("the engine has not finished a step for some time")
        words.append(self._work())
        if not (self._is_stopping or self._is_registered()):
            trouble = self._trouble()
            words.append("no link to the balancer, dialling" + (f" ({trouble})" if trouble else ""))
        return "; ".join(word for word in words if word)


def can_be_trusted(standing: Standing, watchdog_s: float | None) -> bool:
    """Whether the engine is late with nothing, or not yet late enough to be doubted.

    The manager acts a `watchdog_s` after the last word. Doubt begins half of that before the
    engine's own watchdog acts, so that this one comes first, however long a step may take here.
    """
    doubt_s = max(LEAST_DOUBT_S, standing.patience_s - (watchdog_s or 0.0) / 2)
    return standing.silent_s <= doubt_s
