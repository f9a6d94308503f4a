"""Every format of tool calls, by the name that settings have for it."""

from __future__ import annotations

from agent.chat.tool_calls import (
    deepseek,
    generic,
    glm,
    granite,
    harmony,
    hermes,
    kimi,
    llama,
    minimax,
    mistral,
    qwen_coder,
)
from agent.chat.tool_calls.format import ToolFormat

TOOL_FORMATS: dict[str, ToolFormat] = {
    "harmony": harmony.FORMAT,
    "qwen-coder": qwen_coder.FORMAT,
    "glm": glm.FORMAT,
    "minimax": minimax.FORMAT,
    "kimi": kimi.FORMAT,
    "deepseek-fenced": deepseek.FENCED_FORMAT,
    "deepseek": deepseek.FORMAT,
    "mistral-named": mistral.NAMED_FORMAT,
    "mistral": mistral.FORMAT,
    "granite": granite.FORMAT,
    "hermes": hermes.FORMAT,
    "llama": llama.FORMAT,
    "generic": generic.FORMAT,
}
"""In the order in which a template is asked for their marks: the first that knows it is it."""


def tool_format_of(template: str) -> str:
    """The name of the format that a chat template is for; "": it has no tools."""
    known = (name for name, row in TOOL_FORMATS.items() if row.knows_tool_calls(template))
    return next(known, "")
