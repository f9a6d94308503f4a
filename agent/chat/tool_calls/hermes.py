"""Tool calls as Hermes and Qwen write them, JSON between `<tool_call>` and `</tool_call>`."""

from __future__ import annotations

from agent.chat.tool_calls.form import HERMES
from agent.chat.tool_calls.format import ToolFormat, Writing

OPEN = "<tool_call>"
CLOSE = "</tool_call>"


def knows_tool_calls(template: str) -> bool:
    """Whether a chat template is for a model that writes this format."""
    return OPEN in template


FORMAT = ToolFormat(
    revision="hermes-2",
    form=HERMES,
    writing=Writing(openings=(OPEN,), objects=True, stop=CLOSE, endings=(CLOSE,)),
    knows_tool_calls=knows_tool_calls,
)
