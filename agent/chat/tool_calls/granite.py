"""Tool calls as Granite 3 writes them: a JSON list behind `<|tool_call|>` or `<tool_call>`.

Granite 4 writes as Hermes does, and its template says so.
"""

from __future__ import annotations

from agent.chat.tool_calls.format import ToolFormat, Writing
from agent.grammar.call_form import CallForm

OPEN = "<|tool_call|>"
PLAIN_OPEN = "<tool_call>"
PLAIN_CLOSE = "</tool_call>"
_ROLE = "<|start_of_role|>"


def knows_tool_calls(template: str) -> bool:
    """Whether a chat template is for a model that writes this format."""
    is_granite_3 = _ROLE in template and PLAIN_OPEN in template and PLAIN_CLOSE not in template
    return OPEN in template or is_granite_3


FORMAT = ToolFormat(
    revision="granite-1",
    form=CallForm(
        opening=OPEN,
        before_first="[",
        before_name='{"name": "',
        before_arguments='", "arguments": ',
        after_arguments="}",
        between_calls=", ",
        after_last="]",
        specials=(OPEN, PLAIN_OPEN, PLAIN_CLOSE),
    ),
    writing=Writing(openings=(OPEN, PLAIN_OPEN), objects=True, lists=True, endings=(PLAIN_CLOSE,)),
    knows_tool_calls=knows_tool_calls,
)
