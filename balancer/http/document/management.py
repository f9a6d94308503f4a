"""The routes of operators and agents."""

from __future__ import annotations

from balancer.http.document.operation import (
    FINDING,
    READING,
    Answer,
    Example,
    Operation,
    Parameter,
    place,
)
from balancer.http.document.shapes import fleet
from balancer.http.management.agents import LONGEST_DEADLINE_S

_AGENT = place("id", "The agent's name.", "spare")
_REQUEST = place("id", "The `X-Paddler-Request-Id` of the answer.", "req_0")

OPERATIONS = (
    Operation(
        ports=("management",),
        method="GET",
        path="/agents",
        tag="Agents",
        summary="All agents",
        answers=(Answer(description="By name.", shapes=(fleet.AgentList,)),),
        examples=(Example(name="list"),),
    ),
    Operation(
        ports=("management",),
        method="GET",
        path="/agents/{id}",
        tag="Agents",
        summary="One agent",
        parameters=(_AGENT,),
        answers=(Answer(description="The agent.", shapes=(fleet.AgentRow,)),),
        errors=FINDING,
        examples=(Example(name="by name"),),
    ),
    Operation(
        ports=("management",),
        method="POST",
        path="/agents/{id}/drain",
        tag="Agents",
        summary="Give an agent nothing new",
        description="Past the deadline what still runs there goes on elsewhere.",
        parameters=(
            _AGENT,
            Parameter(
                name="deadline_s",
                where="query",
                description="Seconds; without it what runs there may end.",
                schema={"type": "number", "minimum": 0, "maximum": LONGEST_DEADLINE_S},
            ),
        ),
        answers=(Answer(description="The agent.", shapes=(fleet.AgentRow,)),),
        errors=FINDING,
        examples=(Example(name="with a deadline", query={"deadline_s": "30"}),),
    ),
    Operation(
        ports=("management",),
        method="POST",
        path="/agents/{id}/undrain",
        tag="Agents",
        summary="Use an agent again",
        description="One that was removed may come back.",
        parameters=(_AGENT,),
        answers=(Answer(description="The agent.", shapes=(fleet.AgentRow, fleet.AbsentAgent)),),
        errors=FINDING,
        examples=(Example(name="by name"),),
    ),
    Operation(
        ports=("management",),
        method="DELETE",
        path="/agents/{id}",
        tag="Agents",
        summary="Remove an agent",
        description="Its connection ends, and its name is kept out until `undrain`. What runs "
        "there goes on elsewhere.",
        parameters=(_AGENT,),
        answers=(Answer(description="It is gone.", shapes=(fleet.AbsentAgent,)),),
        errors=FINDING,
        examples=(Example(name="by name"),),
    ),
    Operation(
        ports=("management",),
        method="GET",
        path="/agents/connect",
        tag="Agents",
        summary="Where agents dial in",
        description="A WebSocket.",
        answers=(Answer(status=101, description="An agent's link begins.", content_type=""),),
        examples=(Example(name="without a WebSocket", status=400),),
    ),
    Operation(
        ports=("management",),
        method="GET",
        path="/requests",
        tag="Requests",
        summary="What runs and waits",
        answers=(Answer(description="What runs, then what waits.", shapes=(fleet.RequestList,)),),
        examples=(Example(name="list"),),
    ),
    Operation(
        ports=("management",),
        method="DELETE",
        path="/requests/{id}",
        tag="Requests",
        summary="End a request",
        description="Its client gets 409 `request_cancelled`.",
        parameters=(_REQUEST,),
        answers=(Answer(description="It is ended.", shapes=(fleet.CancelledRequest,)),),
        errors=FINDING,
        examples=(Example(name="of nobody", status=404),),
    ),
    Operation(
        ports=("management",),
        method="GET",
        path="/requests/{id}/route",
        tag="Requests",
        summary="Why a request went where it went",
        description="The last 1000 generations have one.",
        parameters=(_REQUEST,),
        answers=(Answer(description="Every choice of an agent.", shapes=(fleet.RequestRoute,)),),
        errors=(*READING, 404),
        examples=(Example(name="of nobody", status=404),),
    ),
)
