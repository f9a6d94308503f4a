"""Every command that an agent knows, by its method."""

from __future__ import annotations

from collections.abc import Callable

from agent.commands.cancel import cancel
from agent.commands.continue_ import continue_
from agent.commands.describe_model import describe_model
from agent.commands.desk import Desk
from agent.commands.detokenize import detokenize
from agent.commands.embed import embed
from agent.commands.export_sequence import export_sequence
from agent.commands.generate_tokens import generate_tokens
from agent.commands.import_sequence import import_sequence
from agent.commands.pause import pause
from agent.commands.render import render
from agent.commands.rerank import rerank
from agent.commands.snapshot import snapshot
from agent.commands.tokenize import tokenize
from protocol.jsonrpc import Notification, Request

REQUESTS: dict[str, Callable[[Desk, Request], None]] = {
    "generate_tokens": generate_tokens,
    "snapshot": snapshot,
    "embed": embed,
    "rerank": rerank,
    "tokenize": tokenize,
    "detokenize": detokenize,
    "render": render,
    "describe_model": describe_model,
    "export_sequence": export_sequence,
    "import_sequence": import_sequence,
}

NOTIFICATIONS: dict[str, Callable[[Desk, Notification], None]] = {
    "cancel": cancel,
    "pause": pause,
    "continue": continue_,
}


def execute(desk: Desk, message: Request | Notification) -> None:
    """Carry out what the balancer asks. Synchronous; raises only for our own mistakes."""
    if isinstance(message, Request):
        REQUESTS[message.method](desk, message)
    else:
        NOTIFICATIONS[message.method](desk, message)
