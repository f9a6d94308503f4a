"""What a relay asks of whoever conducts all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from balancer.errors import BalancerError
from balancer.fleet.agent import Agent
from balancer.policy.failover import Breakage

if TYPE_CHECKING:
    from balancer.dispatch.relay import Relay


class Conductor(Protocol):
    """Whom a relay tells what concerns others than itself."""

    def on_refused_for_capacity(self, relay: Relay, agent: Agent) -> None:
        """Put the relay back to its place among those who wait."""

    def on_broken(
        self, relay: Relay, agent: Agent, breakage: Breakage, error: BalancerError
    ) -> None:
        """Have it go on elsewhere, or end it with the error."""

    def on_first_token(self, relay: Relay, agent: Agent) -> None:
        """A call got its first token from this agent."""

    def on_claimed(self, relay: Relay, agent: Agent) -> float:
        """It has a slot; what its tenant is charged for it, in milliseconds."""

    def on_slot_held(
        self, relay: Relay, agent: Agent, seconds: float, *, charged_ms: float
    ) -> None:
        """A call of this relay held a slot of the agent for so long; 0: it had been refused."""

    def retry_after_s(self, model: str) -> int:
        """When a request for this model should find a slot."""
