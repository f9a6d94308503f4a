"""`tokenize`: the ids of a text."""

from __future__ import annotations

from agent.commands.asking import ask_engine
from agent.commands.desk import Desk
from agent.engine.query_frames import TokenizeCall
from protocol.invariants import instance_of
from protocol.jsonrpc import Request
from protocol.to_agent import Tokenize


def tokenize(desk: Desk, request: Request) -> None:
    """Pass it on to the engine."""
    params = instance_of(request.params, Tokenize)
    ask_engine(
        desk,
        request,
        params.model,
        lambda number: TokenizeCall(
            call=number,
            text=params.text,
            add_special=params.add_special,
            parse_special=params.parse_special,
            with_pieces=params.with_pieces,
        ),
    )
