"""Tool calls as gpt-oss writes them: messages to `functions.name` on the commentary channel.

The channels themselves are told apart by `agent.chat.channels`, which leaves messages to
recipients as they are.
"""

from __future__ import annotations

import re

from agent.chat.tool_calls.format import ToolFormat, Writing
from agent.grammar.call_form import CallForm

START = "<|start|>"
CHANNEL = "<|channel|>"
CONSTRAIN = "<|constrain|>"
MESSAGE = "<|message|>"
END = "<|end|>"
CALL = "<|call|>"
RETURN = "<|return|>"

TO_FUNCTIONS = "to=functions."

_NAMED = re.compile(
    r"(?P<name>[^\s<{]+)"
    rf"(?:\s*{re.escape(CHANNEL)}\s*(?:commentary|analysis))?"
    rf"(?:\s*{re.escape(CONSTRAIN)}\s*\w*|\s+\w+)?"
    rf"\s*{re.escape(MESSAGE)}\s*"
)
_HEADERS = (f"{CHANNEL}commentary ", f"{CHANNEL}analysis ")


def knows_tool_calls(template: str) -> bool:
    """Whether a chat template is for a model that writes this format."""
    return CHANNEL in template and MESSAGE in template


FORMAT = ToolFormat(
    revision="harmony-1",
    form=CallForm(
        opening=_HEADERS[0] + TO_FUNCTIONS,
        before_name="",
        before_arguments=f" {CONSTRAIN}json{MESSAGE}",
        after_arguments=CALL,
        between_calls=None,
        specials=(START, CHANNEL, CONSTRAIN, MESSAGE, END, CALL, RETURN),
    ),
    writing=Writing(
        openings=(
            *(header + TO_FUNCTIONS for header in _HEADERS),
            *(f"{START}assistant{header}{TO_FUNCTIONS}" for header in _HEADERS),
            f"{START}assistant {TO_FUNCTIONS}",
            TO_FUNCTIONS,
        ),
        named=_NAMED,
        stop=CALL,
        endings=(CALL, END),
    ),
    knows_tool_calls=knows_tool_calls,
)
