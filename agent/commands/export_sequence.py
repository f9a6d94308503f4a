"""`export_sequence`: what the KV cache has of a running call goes to the balancer.

The engine writes it to a file in memory between two of its steps; its answer comes through
answers.py, and from there the file is sent.
"""

from __future__ import annotations

from agent.commands.calls import Call
from agent.commands.desk import Desk
from agent.commands.moves import Move
from agent.commands.state_file import ID_BYTES, most_state_bytes
from agent.engine import query_frames
from agent.engine.query_frames import Exported
from protocol.codec import encode_result
from protocol.invariants import instance_of, present
from protocol.jsonrpc import CallId, Request, RpcCode
from protocol.refusals import RefusalCode
from protocol.to_agent import ExportedSequence, ExportSequence
from protocol.transfers import MAX_DATA_CALL

_Refusal = tuple[int, str, str]


def export_sequence(desk: Desk, request: Request) -> None:
    """Pass it on to the engine, or refuse it. A draining agent exports all the same."""
    params = instance_of(request.params, ExportSequence)
    call = desk.calls.with_id(params.call)
    refusal = refused_move(desk, request.id) or _refusal(call, params.call)
    if refusal is not None:
        refuse_move(desk, request.id, *refusal)
        return
    call, call_id = present(call), instance_of(request.id, int)
    query = present(desk.queries.open(call_id))
    try:
        move = desk.moves.begin_export(query.number, call_id)
    except OSError as error:
        desk.queries.close(query.number)
        refuse_move(desk, request.id, RefusalCode.CANNOT_MOVE, "no_memory", f"no file: {error}")
        return
    facts = present(desk.engine.facts)
    most_bytes = most_state_bytes() - ID_BYTES * facts.context_tokens
    call.released = call.released or params.release
    desk.engine.send(
        query_frames.ExportSequence(
            call=query.number,
            target=call.number,
            path=move.file.path,
            most_bytes=max(most_bytes, 0),
            release=params.release,
        )
    )


def relay_exported(desk: Desk, move: Move, answer: Exported) -> None:
    """The engine wrote the file: answer, and let it follow."""
    served = present(desk.served)
    try:
        move.file.filled(answer.size_bytes)
        move.file.append_ids(answer.token_ids)
    except OSError as error:
        desk.moves.end(move)
        refuse_move(desk, move.call_id, RefusalCode.CANNOT_MOVE, "no_memory", str(error))
        return
    exported = ExportedSequence(
        tokens=len(answer.token_ids),
        size_bytes=move.file.size_bytes,
        kv_key=served.kv_key,
        sampler_state=answer.sampler_state,
    )
    desk.send(encode_result(move.call_id, exported))
    desk.moves.send(move)


def refused_move(desk: Desk, call_id: CallId) -> _Refusal | None:
    """Why no sequence can be moved now, in whichever direction: code, reason, words."""
    if not isinstance(call_id, int) or not 1 <= call_id <= MAX_DATA_CALL:
        return RpcCode.INVALID_REQUEST, "id", "the id must be a number of 32 bits, not 0"
    if desk.calls.with_id(call_id) is not None or desk.queries.with_id(call_id) is not None:
        return RpcCode.INVALID_REQUEST, "id", f"the call id {call_id!r} is in use"
    if desk.served is None or desk.engine.facts is None:
        return RefusalCode.MODEL_NOT_LOADED, "engine", "the engine is not ready"
    if not desk.served.kv_key:
        return RefusalCode.CANNOT_MOVE, "no_cache", "this model has no sequences to move"
    if not desk.moves.has_room:
        return RefusalCode.CANNOT_MOVE, "busy", f"{len(desk.moves)} sequences are moving already"
    return None


def refuse_move(desk: Desk, call_id: CallId, code: int, reason: str, message: str) -> None:
    """Refuse an export or an import; `reason` is one of docs/agent-link.md."""
    desk.refuse(call_id, code, message, facts={"reason": reason})


def _refusal(call: Call | None, call_id: CallId) -> _Refusal | None:
    if call is None:
        return RefusalCode.CANNOT_MOVE, "unknown_call", f"no call {call_id!r} runs here"
    if call.state != "committed":
        return RefusalCode.CANNOT_MOVE, "not_cached", f"the call {call_id!r} has not begun"
    return None
