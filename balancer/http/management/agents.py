"""/agents: the fleet as the roster sees it, and taking agents out of it and in again."""

from __future__ import annotations

from typing import Any

from balancer.errors import ResourceNotFound
from balancer.http.calls import Call, audited
from balancer.http.exchange import Wiring
from balancer.http.management.rows import agent_row

LONGEST_DEADLINE_S = 86_400


async def list_agents(call: Call, wiring: Wiring) -> dict[str, Any]:
    """Every registered agent, by name."""
    del call
    return {"object": "list", "data": [agent_row(agent) for agent in wiring.roster.snapshot()]}


async def show_agent(call: Call, wiring: Wiring) -> dict[str, Any]:
    """One of them."""
    name = call.text("id")
    for agent in wiring.roster.snapshot():
        if agent.id == name:
            return agent_row(agent)
    raise _no_such_agent(name)


@audited("agent.drain")
async def drain_agent(call: Call, wiring: Wiring) -> dict[str, Any]:
    """Give it nothing new; past `deadline_s` (none: never) what still runs goes on elsewhere."""
    name = call.text("id")
    deadline_s = call.number("deadline_s", least=0, most=LONGEST_DEADLINE_S, unit=" of seconds")
    if not wiring.dispatcher.evacuation.drain(name, deadline_s=deadline_s):
        raise _no_such_agent(name)
    return await show_agent(call, wiring)


@audited("agent.undrain")
async def undrain_agent(call: Call, wiring: Wiring) -> dict[str, Any]:
    """Use it again; one that was removed may come back."""
    name = call.text("id")
    if not wiring.dispatcher.evacuation.undrain(name):
        raise _no_such_agent(name)
    if wiring.roster.agent(name) is None:
        return {"id": name, "state": "not_connected"}
    return await show_agent(call, wiring)


@audited("agent.remove")
async def remove_agent(call: Call, wiring: Wiring) -> dict[str, Any]:
    """End its connection, and keep it out until `undrain`. What runs there goes on elsewhere."""
    name = call.text("id")
    if not wiring.roster.remove(name):
        raise _no_such_agent(name)
    return {"id": name, "state": "removed"}


def _no_such_agent(name: str) -> ResourceNotFound:
    return ResourceNotFound(
        f"no agent {name[:200]!r} is connected; GET /agents lists those that are"
    )
