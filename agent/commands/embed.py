"""`embed`: vectors of texts. The answer comes when all of them are done."""

from __future__ import annotations

from agent.commands.asking import ask_engine
from agent.commands.desk import Desk
from agent.engine.query_frames import EmbedCall
from protocol.invariants import instance_of
from protocol.jsonrpc import Request
from protocol.to_agent import Embed


def embed(desk: Desk, request: Request) -> None:
    """Pass it on to the engine."""
    params = instance_of(request.params, Embed)
    ask_engine(
        desk,
        request,
        params.model,
        lambda number: EmbedCall(
            call=number,
            inputs=params.inputs,
            pooling=params.pooling,
            normalize=params.normalize,
            dimensions=params.dimensions,
            truncate=params.truncate,
        ),
    )
