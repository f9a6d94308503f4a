"""GET /agents: the fleet as the roster sees it."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp.web import StreamResponse

from balancer.fleet.snapshot import AgentSnapshot
from balancer.http.answers import value_answer
from balancer.http.exchange import Exchange, Wiring


async def list_agents(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """Every registered agent, by name."""
    rows = [_row(agent) for agent in wiring.roster.snapshot()]
    return value_answer(exchange, {"object": "list", "data": rows})


def _row(agent: AgentSnapshot) -> dict[str, Any]:
    row: dict[str, Any] = msgspec.to_builtins(agent)
    return {**row, "slots_total": agent.slots.total, "slots_used": agent.slots.used}
