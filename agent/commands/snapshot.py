"""`snapshot`: a full status, now."""

from __future__ import annotations

from agent.commands.desk import Desk
from protocol.codec import encode_result
from protocol.jsonrpc import Request


def snapshot(desk: Desk, message: Request) -> None:
    """Answer with the status; it takes part in the heartbeats' sequence."""
    desk.send(encode_result(message.id, desk.status()))
