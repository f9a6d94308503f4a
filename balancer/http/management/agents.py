"""/agents: the fleet as the roster sees it, and taking agents out of it and in again."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp.web import StreamResponse

from balancer.errors import ResourceNotFound
from balancer.fleet.snapshot import AgentSnapshot
from balancer.http.answers import value_answer
from balancer.http.exchange import Exchange, Wiring
from balancer.http.faults import refuse_value

LONGEST_DEADLINE_S = 86_400


async def list_agents(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """Every registered agent, by name."""
    rows = [_row(agent) for agent in wiring.roster.snapshot()]
    return value_answer(exchange, {"object": "list", "data": rows})


async def show_agent(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """One of them."""
    return _answer_for(exchange, wiring)


async def drain_agent(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """Give it nothing new; past `deadline_s` (none: never) what still runs goes on elsewhere."""
    deadline_s = _deadline_s(exchange)
    if not wiring.dispatcher.evacuation.drain(exchange.places["id"], deadline_s=deadline_s):
        raise _no_such_agent(exchange)
    return _answer_for(exchange, wiring)


async def undrain_agent(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """Use it again; one that was removed may come back."""
    name = exchange.places["id"]
    if not wiring.dispatcher.evacuation.undrain(name):
        raise _no_such_agent(exchange)
    if wiring.roster.agent(name) is None:
        return value_answer(exchange, {"id": name, "state": "not_connected"})
    return _answer_for(exchange, wiring)


async def remove_agent(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """End its connection, and keep it out until `undrain`. What runs there goes on elsewhere."""
    name = exchange.places["id"]
    if not wiring.roster.remove(name):
        raise _no_such_agent(exchange)
    return value_answer(exchange, {"id": name, "state": "removed"})


def _answer_for(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    for agent in wiring.roster.snapshot():
        if agent.id == exchange.places["id"]:
            return value_answer(exchange, _row(agent))
    raise _no_such_agent(exchange)


def _no_such_agent(exchange: Exchange) -> ResourceNotFound:
    return ResourceNotFound(
        f"no agent {exchange.places['id'][:200]!r} is connected; GET /agents lists those that are"
    )


def _deadline_s(exchange: Exchange) -> float | None:
    given = exchange.request.query.get("deadline_s")
    if given is None:
        return None
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= LONGEST_DEADLINE_S:
        raise refuse_value("deadline_s", given, f"a number of seconds, 0 to {LONGEST_DEADLINE_S}")
    return seconds


def _row(agent: AgentSnapshot) -> dict[str, Any]:
    row: dict[str, Any] = msgspec.to_builtins(agent)
    return {**row, "slots_total": agent.slots.total, "slots_used": agent.slots.used}
