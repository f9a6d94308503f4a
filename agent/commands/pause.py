"""`pause`: a call keeps its slot and gets no tokens. Unknown calls are ended ones: ignored."""

from __future__ import annotations

from agent.commands.desk import Desk
from agent.engine.frames import PauseCall
from protocol.invariants import instance_of
from protocol.jsonrpc import Notification
from protocol.to_agent import Pause


def pause(desk: Desk, message: Notification) -> None:
    """Pass it on to the engine; a call that is still rendered starts paused."""
    params = instance_of(message.params, Pause)
    call = desk.calls.with_id(params.call)
    if call is None:
        return
    desk.calls.pause(call, paused=True)
    if call.state != "rendering":
        desk.engine.send(PauseCall(call=call.number))
