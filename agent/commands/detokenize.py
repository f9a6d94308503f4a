"""`detokenize`: the text of ids."""

from __future__ import annotations

from agent.commands.asking import ask_engine
from agent.commands.desk import Desk
from agent.engine.query_frames import DetokenizeCall
from protocol.invariants import instance_of
from protocol.jsonrpc import Request
from protocol.to_agent import Detokenize


def detokenize(desk: Desk, request: Request) -> None:
    """Pass it on to the engine."""
    params = instance_of(request.params, Detokenize)
    ask_engine(
        desk,
        request,
        params.model,
        lambda number: DetokenizeCall(
            call=number,
            token_ids=params.token_ids,
            show_special=params.show_special,
        ),
    )
