"""`import_sequence`: a state that another agent exported becomes a cached prefix here.

It is collected in a file in memory, and handed to the engine when all of it is there.
"""

from __future__ import annotations

import asyncio

from agent.commands.desk import Desk
from agent.commands.export_sequence import refuse_move, refused_move
from agent.commands.moves import Move
from agent.commands.state_file import ID_BYTES, most_state_bytes
from agent.engine import query_frames
from protocol.invariants import instance_of, present
from protocol.jsonrpc import Request
from protocol.refusals import RefusalCode
from protocol.to_agent import ImportSequence

STALLED_S = 30.0
"""An import of which nothing comes for so long is refused: its memory is others'."""

_Refusal = tuple[int, str, str]


def import_sequence(desk: Desk, request: Request) -> None:
    """Let the state come, or refuse it before any of it does."""
    params = instance_of(request.params, ImportSequence)
    refusal = refused_move(desk, request.id) or _refusal(desk, params)
    if refusal is not None:
        refuse_move(desk, request.id, *refusal)
        return
    call_id = instance_of(request.id, int)
    query = present(desk.queries.open(call_id))
    try:
        move = desk.moves.begin_import(query.number, call_id, params.tokens)
    except OSError as error:
        desk.queries.close(query.number)
        refuse_move(desk, request.id, RefusalCode.CANNOT_MOVE, "no_memory", f"no file: {error}")
        return
    desk.moves.receive(move, _Arrival(desk, move, params))


def _refusal(desk: Desk, params: ImportSequence) -> _Refusal | None:
    served, facts = present(desk.served), present(desk.engine.facts)
    cannot = RefusalCode.CANNOT_MOVE
    if desk.draining:
        return RefusalCode.DRAINING, "draining", "the agent is stopping"
    if params.kv_key != served.kv_key:
        words = "model, KV cache or llama.cpp differ from the exporting agent's (kv_key)"
        return cannot, "kv_key", words
    state_bytes = params.size_bytes - ID_BYTES * params.tokens
    if state_bytes < 1 or params.tokens > facts.context_tokens:
        words = f"{params.size_bytes} bytes cannot be the state of {params.tokens} tokens"
        return cannot, "damaged", f"{words} in a context of {facts.context_tokens}"
    most = min(most_state_bytes(), facts.host_cache_bytes)
    if state_bytes > most:
        words = f"the state has {state_bytes} bytes, there is room for {most}"
        return cannot, "too_large", f"{words} (memory that is free, --host-cache)"
    return None


class _Arrival:
    """The sink of one import."""

    def __init__(self, desk: Desk, move: Move, params: ImportSequence) -> None:
        self._desk = desk
        self._move = move
        self._params = params
        self._put_since = True
        self._timer = asyncio.get_running_loop().call_later(STALLED_S, self._look)

    @property
    def size_bytes(self) -> int:
        """What was announced."""
        return self._params.size_bytes

    def put(self, piece: bytes) -> int:
        """Into the file with it; more may come at once."""
        self._put_since = True
        try:
            self._move.file.append(piece)
        except OSError as error:
            self._refuse("no_memory", f"the state cannot be kept: {error}")
            return 0
        return len(piece)

    def whole(self) -> None:
        """All is here: hand it to the engine."""
        self._timer.cancel()
        desk, move = self._desk, self._move
        token_ids = move.file.cut_ids(move.tokens)
        desk.moves.received(move)
        desk.engine.send(
            query_frames.ImportSequence(
                call=move.number,
                scope=self._params.cache_scope,
                token_ids=token_ids,
                path=move.file.path,
                size_bytes=move.file.size_bytes,
            )
        )

    def failed(self, reason: str) -> None:
        """The transfer broke."""
        self._refuse("damaged", f"the transfer failed: {reason}")

    def _look(self) -> None:
        if self._desk.moves.numbered(self._move.number) is not self._move:
            return  # it ended otherwise
        if not self._put_since:
            self._refuse("stalled", f"nothing of the state came for {STALLED_S:g} s")
            return
        self._put_since = False
        self._timer = asyncio.get_running_loop().call_later(STALLED_S, self._look)

    def _refuse(self, reason: str, message: str) -> None:
        self._timer.cancel()
        self._desk.moves.end(self._move)
        query = self._desk.queries.close(self._move.number)
        if query is not None:
            refuse_move(self._desk, query.id, RefusalCode.CANNOT_MOVE, reason, message)
