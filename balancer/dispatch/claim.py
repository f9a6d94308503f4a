"""A slot of an agent that a generation holds: the call that runs there, from its sending on."""

from __future__ import annotations

from balancer.fleet.agent import Agent


class Claim:
    """Made when the call was sent. The agent counts it until it confirms the call's end."""

    __slots__ = (
        "_chain",
        "_held_blocks",
        "agent",
        "call_id",
        "charged_ms",
        "is_committed",
        "prefilled",
    )

    def __init__(self, agent: Agent, call_id: int, *, chain: bytes) -> None:
        self.agent = agent
        self.charged_ms = 0.0
        """What its tenant was charged beforehand."""
        self.is_committed = False
        """Whether the agent confirmed that it has the slot."""
        self.prefilled = 0
        """Tokens of the prompt that are in the cache, as the agent last said."""
        self.call_id = call_id
        self._chain = chain
        self._held_blocks = agent.cached.expect(chain)

    @property
    def is_paused_there(self) -> bool:
        """Whether the agent says that it stands still because it was asked to."""
        return self.call_id in self.agent.status.paused

    @property
    def gives_way(self) -> bool:
        """Whether the agent says that it stands still for other calls."""
        return self.call_id in self.agent.status.waiting

    def pause(self) -> None:
        """Ask the agent to stop producing."""
        self.agent.link.pause(self.call_id)

    def resume(self) -> None:
        """Ask the agent to go on."""
        self.agent.link.continue_(self.call_id)

    def cancel(self) -> None:
        """Ask the agent to end it: the end will be heard."""
        self.agent.link.cancel(self.call_id)

    def abandon(self) -> None:
        """Have it ended, and hear nothing more of it."""
        self.agent.link.abandon(self.call_id)

    def give_back(self) -> None:
        """The call is over: its blocks are no longer expected there."""
        self.agent.cached.expect_no_more(self._chain, held=self._held_blocks)
