"""How long an agent may take over a part: longer while it shows that it is at work."""

from __future__ import annotations

import asyncio
from typing import Protocol
from weakref import WeakKeyDictionary

from balancer.dispatch.embedding_batch import Part
from balancer.fleet.agent import Agent

MOST_EXTENSIONS = 4
"""So often may a part take as long again; an agent at work may have lost this one."""
_Signs = tuple[int, int]
"""Engine steps, as the agent last said, and parts that it answered."""


class OnStalled(Protocol):
    """Who hears that a part takes too long. `is_at_work`: its agent did other things meanwhile."""

    def __call__(self, part: Part, *, is_at_work: bool) -> None: ...


class Patience:
    """Watches parts that are on their way; `part.timer` ends it."""

    def __init__(self, *, timeout_s: float, on_stalled: OnStalled) -> None:
        self._timeout_s = timeout_s
        self._on_stalled = on_stalled
        self._answered: WeakKeyDictionary[Agent, int] = WeakKeyDictionary()

    def watch(self, part: Part, *, extensions: int = 0) -> None:
        """Its agent has `timeout_s` from now on to answer it or to show a sign of work."""
        loop = asyncio.get_running_loop()
        part.timer = loop.call_later(
            self._timeout_s, self._look, part, self._signs(part.agent), extensions
        )

    def note_answer(self, agent: Agent) -> None:
        """It answered a part."""
        self._answered[agent] = self._answered.get(agent, 0) + 1

    def _look(self, part: Part, before: _Signs, extensions: int) -> None:
        is_at_work = self._signs(part.agent) != before
        if is_at_work and extensions < MOST_EXTENSIONS:
            self.watch(part, extensions=extensions + 1)
        else:
            self._on_stalled(part, is_at_work=is_at_work)

    def _signs(self, agent: Agent) -> _Signs:
        return agent.status.engine_steps, self._answered.get(agent, 0)
