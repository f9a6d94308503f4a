"""Agents and requests, as operators see them."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from balancer.dispatch.journal import Route
from balancer.dispatch.listing import RequestSnapshot
from balancer.fleet.snapshot import AgentSnapshot


class AgentRow(AgentSnapshot, frozen=True, kw_only=True):
    """An agent."""

    slots_total: int
    slots_used: int


class AgentList(Struct, kw_only=True):
    """All agents, by name."""

    object: Literal["list"]
    data: list[AgentRow]


class AbsentAgent(Struct, kw_only=True):
    """An agent that is not here, and whether it may come."""

    id: str
    state: Literal["removed", "not_connected"]


class RequestList(Struct, kw_only=True):
    """What runs, then what waits, in order."""

    object: Literal["list"]
    data: list[RequestSnapshot]


class CancelledRequest(Struct, kw_only=True):
    """A request that was ended."""

    id: str
    state: Literal["cancelled"]


class RequestRoute(Route, kw_only=True):
    """Why a request went where it went."""

    object: Literal["route"]
    other_choices: list[Route]
