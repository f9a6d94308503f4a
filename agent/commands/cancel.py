"""`cancel`: end a call. Its `finished` or its refusal says when the slot is free."""

from __future__ import annotations

from agent.commands.desk import Desk
from agent.engine.frames import CancelCall
from protocol.codec import encode_notification
from protocol.generation import Usage
from protocol.invariants import instance_of
from protocol.jsonrpc import Notification
from protocol.refusals import RefusalCode
from protocol.to_agent import Cancel
from protocol.to_balancer import Finished


def cancel(desk: Desk, message: Notification) -> None:
    """Pass it on to the engine; a call that is not there yet, or not any more, ends at once."""
    params = instance_of(message.params, Cancel)
    query = desk.queries.with_id(params.call)
    call = desk.calls.with_id(params.call)
    if query is not None:
        desk.queries.close(query.number)
        desk.engine.send(CancelCall(call=query.number))
        desk.moves.unwanted(query.number)
        desk.refuse(query.id, RefusalCode.CANCELLED, "cancelled before it was answered")
    elif call is None:
        nothing = Usage(prompt_tokens=0, completion_tokens=0)
        ended = Finished(call=params.call, finish_reason="cancelled", usage=nothing)
        desk.send(encode_notification(ended))
    elif call.state == "rendering":
        desk.end_refused(call, RefusalCode.CANCELLED, "cancelled before it was submitted")
    else:
        desk.engine.send(CancelCall(call=call.number))
