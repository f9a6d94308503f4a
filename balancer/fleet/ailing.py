"""Agents that are not well: whose free slots grow with time alone, and what is remembered of those
that left in disgrace."""

from __future__ import annotations

from balancer.fleet.agent import Agent
from balancer.fleet.latest import Latest
from balancer.policy.ejection import Health
from protocol.agent_status import Issue

MAX_UNWELL = 1024
EJECTED = "ejected"


class Ailing:
    """They are counted before anybody looks."""

    def __init__(self) -> None:
        self._ailing: dict[Agent, None] = {}
        self._recovered: dict[Agent, None] = {}
        """Those of them that are well again, and nobody who waits was told."""
        self._unwell: Latest[Health] = Latest(MAX_UNWELL)
        """Of agents that left in disgrace: coming back changes nothing."""

    def health_of(self, name: str) -> Health:
        """That an agent of this name comes in with."""
        return self._unwell.take(name) or Health()

    def remember(self, agent: Agent) -> None:
        """For its next link."""
        self._unwell.note(agent.name, agent.health)

    def watch(self, agent: Agent) -> None:
        """From now on, if it is not well."""
        if not agent.health.is_well:
            self._ailing[agent] = None

    def forget(self, agent: Agent) -> None:
        """It is gone."""
        self._ailing.pop(agent, None)
        self._recovered.pop(agent, None)
        if not agent.health.is_well or agent.health.has_failed:
            self.remember(agent)

    def recount_all(self) -> None:
        """Count their slots."""
        for agent in tuple(self._ailing):
            self.recount(agent)

    def recount(self, agent: Agent) -> None:
        """Count its slots, if it is one of them. Who looks may be in the middle of a choice, so
        those who wait are told that it recovered later: `take_recovered` says of whom."""
        if agent not in self._ailing:
            return
        agent.recount()
        if agent.health.is_well:
            del self._ailing[agent]
            self._recovered[agent] = None

    def take_recovered(self) -> set[Agent]:
        """Those that became well since the last time."""
        recovered, self._recovered = self._recovered, {}
        return set(recovered)


def note_ejected(agent: Agent, *, now: float) -> float:
    """Have operators see that it is left out; for how many seconds."""
    until_s = agent.health.ejected_until(now)
    left_s = 0.0 if until_s is None else until_s - now
    agent.noticed[EJECTED] = Issue(
        code=EJECTED,
        message=f"its calls failed, so it gets none for {left_s:.0f} s; see its log",
        severity="warning",
    )
    return left_s
