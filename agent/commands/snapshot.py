"""`snapshot`: all that is cached and a full status, now."""

from __future__ import annotations

from agent.commands.desk import Desk
from protocol.codec import encode_notification, encode_result
from protocol.jsonrpc import Request


def snapshot(desk: Desk, message: Request) -> None:
    """Tell of the cache from the start, then answer with the status; it takes part in the
    heartbeats' sequence."""
    desk.cached.start_over()
    for changed in desk.cached.take_changes():
        desk.send(encode_notification(changed))
    desk.send(encode_result(message.id, desk.status()))
