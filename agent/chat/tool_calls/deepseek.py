"""Tool calls as DeepSeek writes them, between marks of full-width bars.

V3 and R1 write a type, a name and the arguments in a fence of three backticks; V3.1 leaves type and
fence out.
"""

from __future__ import annotations

import re

from agent.chat.tool_calls.format import ToolFormat, Writing
from agent.grammar.call_form import CallForm

CALLS_BEGIN = "<｜tool▁calls▁begin｜>"
CALLS_END = "<｜tool▁calls▁end｜>"
CALL_BEGIN = "<｜tool▁call▁begin｜>"
CALL_END = "<｜tool▁call▁end｜>"
SEPARATOR = "<｜tool▁sep｜>"
FENCE = "```"

_NAMED = re.compile(
    rf"(?:{CALL_BEGIN}\s*)?(?:function{SEPARATOR})?(?P<name>[^\s<`{{]+)\s*"
    rf"(?:{SEPARATOR}\s*)?(?:{FENCE}(?:json)?\s*)?"
)
_SPECIALS = (CALLS_BEGIN, CALLS_END, CALL_BEGIN, CALL_END, SEPARATOR)
_WRITING = Writing(
    openings=(CALLS_BEGIN, CALL_BEGIN),
    named=_NAMED,
    stop=CALL_END,
    endings=(FENCE, CALL_END, CALLS_END),
)


def knows_fenced_calls(template: str) -> bool:
    """Whether a chat template is for V3 or R1."""
    return CALL_BEGIN in template and FENCE in template


def knows_tool_calls(template: str) -> bool:
    """Whether a chat template is for a model that writes this format, V3.1's way if in doubt."""
    return CALL_BEGIN in template


FENCED_FORMAT = ToolFormat(
    revision="deepseek-fenced-1",
    form=CallForm(
        opening=CALLS_BEGIN,
        before_name=f"{CALL_BEGIN}function{SEPARATOR}",
        before_arguments=f"\n{FENCE}json\n",
        after_arguments=f"\n{FENCE}{CALL_END}",
        between_calls="\n",
        after_last=CALLS_END,
        specials=_SPECIALS,
    ),
    writing=_WRITING,
    knows_tool_calls=knows_fenced_calls,
)
FORMAT = ToolFormat(
    revision="deepseek-1",
    form=CallForm(
        opening=CALLS_BEGIN,
        before_name=CALL_BEGIN,
        before_arguments=SEPARATOR,
        after_arguments=CALL_END,
        between_calls="",
        after_last=CALLS_END,
        specials=_SPECIALS,
    ),
    writing=_WRITING,
    knows_tool_calls=knows_tool_calls,
)
"""The same to a parser as `FENCED_FORMAT`; another form for a grammar."""
