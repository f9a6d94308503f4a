"""Whose turn it is at an agent that takes queries of several kinds: theirs who wait longest."""

from __future__ import annotations

from math import inf
from typing import Protocol

from balancer.fleet.agent import Agent
from balancer.fleet.roster import Roster


class QueryKind(Protocol):
    """A dispatcher of one kind of queries."""

    @property
    def waiting(self) -> int:
        """How many of its requests wait."""

    def waits_since_s(self, agent: Agent) -> float:
        """Since when its next one for this agent waits; infinity: none does."""

    def start_waiting(self, agent: Agent) -> None:
        """Start those that this agent has room for, in their order."""


class QueryTurns:
    """Tells the kinds of each change of an agent, who waits longer first: neither's flood can keep
    the agents from the other."""

    def __init__(self, roster: Roster) -> None:
        self._kinds: list[QueryKind] = []
        roster.watch(self._on_change)

    def add(self, kind: QueryKind) -> None:
        """One more that wants to be told."""
        self._kinds.append(kind)

    def others_wait(self, kind: QueryKind, agent: Agent) -> bool:
        """Whether a request of another kind waits for this agent."""
        others = [other for other in self._kinds if other is not kind and other.waiting]
        return any(other.waits_since_s(agent) < inf for other in others)

    def _on_change(self, agent: Agent) -> None:
        kinds = [kind for kind in self._kinds if kind.waiting]
        if len(kinds) > 1:
            kinds.sort(key=lambda kind: kind.waits_since_s(agent))
        for kind in kinds:
            kind.start_waiting(agent)
