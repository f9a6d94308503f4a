"""Tool calls as Kimi-K2 writes them: sections of calls, each with a number behind its name."""

from __future__ import annotations

import re

from agent.chat.call_ids import ARGUMENTS_BEGIN
from agent.chat.tool_calls.format import ToolFormat, Writing
from agent.grammar.call_form import CallForm

SECTION_BEGIN = "<|tool_calls_section_begin|>"
SECTION_END = "<|tool_calls_section_end|>"
CALL_BEGIN = "<|tool_call_begin|>"
CALL_END = "<|tool_call_end|>"

_NAMED = re.compile(
    rf"(?:{re.escape(CALL_BEGIN)}\s*)?(?:functions\.)?(?P<name>[^\s:<{{]+)(?::[0-9]*)?"
    rf"\s*{re.escape(ARGUMENTS_BEGIN)}\s*"
)


def knows_tool_calls(template: str) -> bool:
    """Whether a chat template is for a model that writes this format."""
    return CALL_BEGIN in template and ARGUMENTS_BEGIN in template


FORMAT = ToolFormat(
    revision="kimi-1",
    form=CallForm(
        opening=SECTION_BEGIN,
        before_name=CALL_BEGIN + "functions.",
        is_numbered=True,
        before_arguments=ARGUMENTS_BEGIN,
        after_arguments=CALL_END,
        between_calls="",
        after_last=SECTION_END,
        specials=(SECTION_BEGIN, SECTION_END, CALL_BEGIN, CALL_END, ARGUMENTS_BEGIN),
    ),
    writing=Writing(
        openings=(SECTION_BEGIN, CALL_BEGIN),
        named=_NAMED,
        stop=CALL_END,
        endings=(CALL_END, SECTION_END),
    ),
    knows_tool_calls=knows_tool_calls,
)
