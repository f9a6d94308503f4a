"""How long an agent may take over a query: longer while it shows that it is at work."""

from __future__ import annotations

import asyncio
from typing import Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

from balancer.fleet.agent import Agent
from balancer.settings import LiveSettings

MOST_EXTENSIONS = 4
"""So often may a query take as long again; an agent at work may have lost this one."""
_Signs = tuple[int, int]
"""Engine steps, as the agent last said, and queries that it answered."""


class Watched(Protocol):
    """What an agent was asked."""

    timer: asyncio.TimerHandle | None

    @property
    def agent(self) -> Agent: ...


AnyWatched = TypeVar("AnyWatched", bound=Watched)
_Stalled = TypeVar("_Stalled", bound=Watched, contravariant=True)


class OnStalled(Protocol[_Stalled]):
    """Who hears that it takes too long. `is_at_work`: its agent did other things meanwhile."""

    def __call__(self, query: _Stalled, /, *, is_at_work: bool) -> None: ...


class Patience(Generic[AnyWatched]):
    """Watches queries that are on their way; `timer` of one ends it."""

    def __init__(self, *, settings: LiveSettings, on_stalled: OnStalled[AnyWatched]) -> None:
        self._settings = settings
        self._on_stalled = on_stalled
        self._answered: WeakKeyDictionary[Agent, int] = WeakKeyDictionary()

    def watch(self, query: AnyWatched, *, extensions: int = 0) -> None:
        """Its agent has `query_timeout_s` from now on to answer it or to show a sign of work."""
        loop = asyncio.get_running_loop()
        query.timer = loop.call_later(
            self._settings.current.query_timeout_s,
            self._look,
            query,
            self._signs(query.agent),
            extensions,
        )

    def note_answer(self, agent: Agent) -> None:
        """It answered one."""
        self._answered[agent] = self._answered.get(agent, 0) + 1

    def _look(self, query: AnyWatched, before: _Signs, extensions: int) -> None:
        is_at_work = self._signs(query.agent) != before
        if is_at_work and extensions < MOST_EXTENSIONS:
            self.watch(query, extensions=extensions + 1)
        else:
            self._on_stalled(query, is_at_work=is_at_work)

    def _signs(self, agent: Agent) -> _Signs:
        return agent.status.engine_steps, self._answered.get(agent, 0)
