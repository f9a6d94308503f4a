"""Requests that wait for one full agent though others have room: it has their beginning cached."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from msgspec import Struct

from balancer.dispatch.relay import Relay

LOOK_EVERY_S = 0.5
"""At whether the agent is still there."""
MOST_HELD = 64
"""Each is looked at whenever any agent has room."""


class Hold(Struct, frozen=True):
    """The agent's name, and for how long to wait for it at most, in seconds since the arrival."""

    agent: str
    until_age_s: float


class Holding:
    """`on_end(relay)` is called when one has waited for long enough, or soon after it began to wait
    in vain, which `is_vain(agent, relay)` tells; never after `release`."""

    def __init__(
        self, on_end: Callable[[Relay], None], *, is_vain: Callable[[str, Relay], bool]
    ) -> None:
        self._on_end = on_end
        self._is_vain = is_vain
        self._held: dict[Relay, tuple[str, asyncio.TimerHandle]] = {}
        self._waiting_for: Counter[str] = Counter()

    @property
    def is_full(self) -> bool:
        """Whether no more may be held."""
        return len(self._held) >= MOST_HELD

    def agent_of(self, relay: Relay) -> str | None:
        """The name of the agent that it waits for; None: for any."""
        held = self._held.get(relay)
        return None if held is None else held[0]

    def waiting_for(self, agent: str) -> int:
        """How many wait for this agent."""
        return self._waiting_for[agent]

    def hold(self, relay: Relay, hold: Hold) -> None:
        """From now on; who is held already waits on as before."""
        if relay in self._held:
            return
        self._held[relay] = hold.agent, self._look_later(relay, hold)
        self._waiting_for[hold.agent] += 1

    def release(self, relay: Relay) -> None:
        """It waits for no agent in particular, or not at all."""
        agent, timer = self._held.pop(relay, (None, None))
        if agent is not None and timer is not None:
            timer.cancel()
            self._waiting_for[agent] -= 1
            if not self._waiting_for[agent]:
                del self._waiting_for[agent]

    def _look_later(self, relay: Relay, hold: Hold) -> asyncio.TimerHandle:
        left_s = max(hold.until_age_s - relay.times.age_ms / 1000, 0.0)
        loop = asyncio.get_running_loop()
        return loop.call_later(min(left_s, LOOK_EVERY_S), self._look, relay, hold)

    def _look(self, relay: Relay, hold: Hold) -> None:
        is_over = relay.times.age_ms >= 1000 * hold.until_age_s
        if is_over or self._is_vain(hold.agent, relay):
            self.release(relay)
            self._on_end(relay)
        else:
            self._held[relay] = hold.agent, self._look_later(relay, hold)
