"""Tool calls as Hermes and Qwen write them, JSON between `<tool_call>` and `</tool_call>`."""

from __future__ import annotations

from agent.chat.tool_calls.format import ToolFormat, Writing
from agent.grammar.call_form import CallForm

OPEN = "<tool_call>"
CLOSE = "</tool_call>"


def knows_tool_calls(template: str) -> bool:
    """Whether a chat template is for a model that writes this format."""
    return OPEN in template


FORMAT = ToolFormat(
    revision="hermes-2",
    form=CallForm(
        opening=OPEN,
        before_name='\n{"name": "',
        before_arguments='", "arguments": ',
        after_arguments="}\n" + CLOSE,
        between_calls="\n" + OPEN,
        specials=(OPEN, CLOSE),
    ),
    writing=Writing(openings=(OPEN,), objects=True, stop=CLOSE, endings=(CLOSE,)),
    knows_tool_calls=knows_tool_calls,
)
