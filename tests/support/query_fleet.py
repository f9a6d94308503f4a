"""A roster of agents in memory, and a dispatcher of requests that take no slot."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

from balancer.dispatch.query_dispatcher import QueryDispatcher
from balancer.dispatch.query_turns import QueryTurns
from balancer.errors import BalancerError
from balancer.fleet.roster import Roster
from balancer.observability.metrics import Metrics
from balancer.policy.identity.principal import Principal
from balancer.settings import LiveSettings, Settings
from tests.support.generations import ANYONE
from tests.support.memory_agent import MemoryAgent
from tests.support.virtual_time import settle

Result = TypeVar("Result")


class QueryFleet(ABC, Generic[Result]):
    """On the running loop's clock. Of one kind of requests, which a subclass says."""

    def __init__(self, **settings: Any) -> None:
        self.metrics = Metrics()
        self.settings = LiveSettings(Settings(**settings))
        self.now = asyncio.get_running_loop().time
        self.roster = Roster(settings=self.settings, metrics=self.metrics, now=self.now)
        self.turns = QueryTurns(self.roster)
        self.parts: dict[str, Any] = {
            "roster": self.roster,
            "settings": self.settings,
            "metrics": self.metrics,
            "turns": self.turns,
            "now": self.now,
        }
        """What any dispatcher of queries is made of."""
        self._tasks: list[asyncio.Task[Result]] = []

    @property
    @abstractmethod
    def queries(self) -> QueryDispatcher[Any, Any]:
        """Who runs them."""

    @abstractmethod
    async def submit(self, *, tenant: str = "", body_bytes: int = 1) -> asyncio.Task[Result]:
        """A request that one query does."""

    def agent(self, name: str = "one", *, queries: int = 4, **more: Any) -> MemoryAgent:
        """One without slots that makes vectors, unless something else is asked for."""
        given = {"slots": 0, "dimensions": 3, "queries": queries, **more}
        return MemoryAgent(self.roster, name, **given).register()

    def sample(self, name: str) -> float:
        """A series' value."""
        return self.metrics.registry.get_sample_value(name, {}) or 0.0

    @property
    def _next_id(self) -> str:
        """`req_` and the request's number, from 0 on."""
        return f"req_{len(self._tasks)}"

    async def _begun(self, request: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        task = asyncio.ensure_future(request)
        self._tasks.append(task)
        await settle()
        return task


def principal_of(tenant: str) -> Principal:
    """A user of this tenant; without one, anyone."""
    return Principal(tenant=tenant, role="user") if tenant else ANYONE


def error_of(task: asyncio.Task[Any]) -> BalancerError:
    """What a request ended with."""
    error = task.exception()
    assert isinstance(error, BalancerError), error
    return error
