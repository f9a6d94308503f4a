"""The fleet as admission sees it for queries: an agent's places are those that it takes at once."""

from __future__ import annotations

from balancer.fleet.agent import Agent
from balancer.fleet.roster import Roster
from protocol.models import ServedModel


class QueryCrew:
    """An agent whose slots are its queries."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    @property
    def name(self) -> str:
        """The agent's."""
        return self._agent.name

    @property
    def slots_total(self) -> int:
        """Queries that it takes at once."""
        return self._agent.queries_total


class QueryFleet:
    """The roster's agents in this light."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster

    @property
    def has_agents(self) -> bool:
        """As the roster says."""
        return self._roster.has_agents

    @property
    def had_agents(self) -> bool:
        """As the roster says."""
        return self._roster.had_agents

    def agents(self) -> list[QueryCrew]:
        """All of them."""
        return [QueryCrew(agent) for agent in self._roster.agents()]

    def candidates(self, model: str) -> list[QueryCrew]:
        """Those that serve the model."""
        return [QueryCrew(agent) for agent in self._roster.candidates(model)]

    def served_models(self) -> list[ServedModel]:
        """As the roster says."""
        return self._roster.served_models()

    def is_remembered(self, model: str) -> bool:
        """As the roster says."""
        return self._roster.is_remembered(model)
