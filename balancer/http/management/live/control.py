"""What `/ws/control` shows: agents, models, requests and the latest that ended, as the lists do.

Rows hold moments instead of ages: a row of something that stands still does not change.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from balancer.dispatch.journal import Route
from balancer.dispatch.listing import RequestSnapshot
from balancer.fleet.roster import Roster
from balancer.fleet.snapshot import AgentSnapshot
from balancer.http.management.rows import (
    Lister,
    agent_row,
    finished_row,
    model_rows,
    requests_of,
)
from balancer.observability.tree import Tree

MAX_REQUESTS = 1000
"""More rows than these are not shown; how many there are is told among the figures."""
SHOWN_FINISHED = 50
"""The latest that are over: part of what is told, so that nobody asks anew whenever one ends."""


class ControlFeed:
    """Reads everything anew each time."""

    def __init__(
        self,
        *,
        roster: Roster,
        listers: Iterable[Lister],
        finished: Callable[[int], list[Route]],
        is_draining: Callable[[], bool],
        version: str,
        started: int,
    ) -> None:
        self._roster = roster
        self._listers = tuple(listers)
        self._finished = finished
        self._is_draining = is_draining
        self._version = version
        self._started = started
        self._arrivals: dict[str, float] = {}
        self._connections: dict[tuple[str, str], float] = {}

    def read(self) -> Tree:
        """Everything as it is now."""
        now = time.time()
        agents = self._roster.snapshot()
        return {
            "agents": self._agents(agents, now),
            "models": {row["id"]: row for row in model_rows(self._roster, created=self._started)},
            "requests": self._requests(now),
            "finished": {
                f"{route.request_id}#{route.choice}": finished_row(route)
                for route in reversed(self._finished(SHOWN_FINISHED))
            },
            "balancer": {
                "status": "draining" if self._is_draining() else "healthy",
                "version": self._version,
                "started": self._started,
                "draining": self._is_draining(),
            },
        }

    def beside(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def news(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def _agents(self, agents: list[AgentSnapshot], now: float) -> dict[str, Any]:
        before = self._connections
        self._connections = {
            (agent.id, agent.epoch): before.get(
                (agent.id, agent.epoch), round(now - agent.connected_for_s, 3)
            )
            for agent in agents
        }
        return {agent.id: self._agent_row(agent, now) for agent in agents}

    def _agent_row(self, agent: AgentSnapshot, now: float) -> dict[str, Any]:
        row = agent_row(agent)
        del row["connected_for_s"], row["clock_ahead_s"]  # different with each heartbeat
        row["connected"] = self._connections[(agent.id, agent.epoch)]
        row["last_heard"] = round(now - row.pop("last_heard_s_ago"))
        return row

    def _requests(self, now: float) -> dict[str, Any]:
        found = requests_of(self._listers)[:MAX_REQUESTS]
        before = self._arrivals
        self._arrivals = {
            (key := _key(row)): before.get(key, round(now - row.age_ms / 1000, 3)) for row in found
        }
        return {_key(row): self._request_row(row) for row in found}

    def _request_row(self, request: RequestSnapshot) -> dict[str, Any]:
        row: dict[str, Any] = msgspec.to_builtins(request)
        del row["age_ms"]
        row["arrived"] = self._arrivals[_key(request)]
        return row


def _key(request: RequestSnapshot) -> str:
    return f"{request.id}#{request.choice}"
