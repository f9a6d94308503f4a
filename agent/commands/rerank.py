"""`rerank`: how well documents answer a query."""

from __future__ import annotations

from agent.commands.asking import ask_engine
from agent.commands.desk import Desk
from agent.engine.query_frames import RerankCall
from protocol.invariants import instance_of
from protocol.jsonrpc import Request
from protocol.to_agent import Rerank


def rerank(desk: Desk, request: Request) -> None:
    """Pass it on to the engine."""
    params = instance_of(request.params, Rerank)
    ask_engine(
        desk,
        request,
        params.model,
        lambda number: RerankCall(
            call=number,
            query=params.query,
            documents=params.documents,
        ),
    )
