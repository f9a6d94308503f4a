"""What an agent's link tells of the agent itself; the roster hears it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from protocol.agent_status import AgentStatus, Issue
from protocol.to_balancer import CacheChanged, Heartbeat, Register, Welcome

if TYPE_CHECKING:
    from balancer.fleet.agent_link import AgentLink


class LinkOwner(Protocol):
    """Who hears what concerns the agent rather than a call."""

    def on_register(self, link: AgentLink, register: Register) -> Welcome:
        """Raises `LinkRefused`. The welcome is not on its way yet, so nothing may be sent."""

    def on_registered(self, link: AgentLink) -> None:
        """The welcome is on its way; calls may follow it."""

    def on_heartbeat(self, link: AgentLink, heartbeat: Heartbeat) -> None: ...

    def on_snapshot(self, link: AgentLink, status: AgentStatus) -> None: ...

    def on_cache_changed(self, link: AgentLink, changed: CacheChanged) -> None: ...

    def on_issue_raised(self, link: AgentLink, issue: Issue) -> None: ...

    def on_issue_cleared(self, link: AgentLink, code: str) -> None: ...

    def on_goodbye(self, link: AgentLink, reason: str) -> None: ...

    def on_committed(self, link: AgentLink) -> None:
        """The agent took a call; its handler hears it after."""

    def on_call_ended(self, link: AgentLink) -> None:
        """A claimed slot was given back; the call's handler heard it before."""

    def on_query_ended(self, link: AgentLink) -> None:
        """A query is over; its handler heard it before."""

    def on_unusable(self, link: AgentLink) -> None:
        """What it says cannot be used; the link is closed next."""

    def on_closed(self, link: AgentLink, reason: str) -> None:
        """Comes before the handlers of the lost calls hear of it."""
