"""`continue`: a paused call goes on. Unknown calls are ended ones: ignored."""

from __future__ import annotations

from agent.commands.desk import Desk
from agent.engine.frames import ContinueCall
from protocol.invariants import instance_of
from protocol.jsonrpc import Notification
from protocol.to_agent import Continue


def continue_(desk: Desk, message: Notification) -> None:
    """Pass it on to the engine."""
    params = instance_of(message.params, Continue)
    call = desk.calls.with_id(params.call)
    if call is None:
        return
    desk.calls.pause(call, paused=False)
    if call.state != "rendering":
        desk.engine.send(ContinueCall(call=call.number))
