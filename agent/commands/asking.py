"""How a query goes to the engine; its answer comes back through answers.py."""

from __future__ import annotations

from collections.abc import Callable

from agent.commands.desk import Desk
from agent.commands.queries import Query
from agent.engine.query_frames import QueryCall
from protocol.jsonrpc import Request, RpcCode
from protocol.refusals import RefusalCode


def ask_engine(
    desk: Desk, request: Request, model: str, command: Callable[[int], QueryCall]
) -> None:
    """Send the engine the command for the query's number, or refuse the request."""
    query = open_query(desk, request, model)
    if query is not None:
        desk.engine.send(command(query.number))


def open_query(desk: Desk, request: Request, model: str) -> Query | None:
    """The request as a query of this agent; None: it was refused."""
    refusal = _refusal(desk, model)
    if refusal is not None:
        desk.refuse(request.id, *refusal)
        return None
    query = None if desk.calls.with_id(request.id) else desk.queries.open(request.id)
    if query is None:
        message = f"the call id {request.id!r} is in use"
        desk.refuse(request.id, RpcCode.INVALID_REQUEST, message)
    return query


def _refusal(desk: Desk, model: str) -> tuple[int, str] | None:
    served = desk.served
    if desk.draining:
        return RefusalCode.DRAINING, "the agent is stopping"
    if served is None or desk.engine.facts is None:
        return RefusalCode.MODEL_NOT_LOADED, "the engine is not ready"
    if not served.answers_to(model):
        message = f"this agent serves {served.model.name!r}, not {model!r}"
        return RefusalCode.MODEL_NOT_LOADED, message
    return None
