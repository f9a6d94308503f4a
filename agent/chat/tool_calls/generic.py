"""Tool calls of models whose templates offer tools in no form that is known here: as JSON.

A call is the beginning of the answer, or stands in a fence of three backticks: an object with
`name` and `arguments` (or `parameters`), or a list of such. It is held until it is whole.
"""

from __future__ import annotations

import re

from agent.chat.tool_calls.format import ToolFormat, Writing
from agent.grammar.call_form import CallForm

OPEN = "```json"
CLOSE = "```"

_BRACES = re.compile(r"(\{[{%]|[%}]\})")
_TOOLS = re.compile(r"\btools\b")


def knows_tool_calls(template: str) -> bool:
    """Whether a chat template shows a model the tools it may call: its code speaks of them."""
    is_code = False
    for part in _BRACES.split(template):
        if _BRACES.fullmatch(part):
            is_code = part in ("{{", "{%")
        elif is_code and _TOOLS.search(part):
            return True
    return False


FORMAT = ToolFormat(
    revision="generic-1",
    form=CallForm(
        opening="",
        before_name='{"name": "',
        before_arguments='", "arguments": ',
        after_arguments="}",
        between_calls="\n",
    ),
    writing=Writing(openings=(OPEN,), is_sure=False, objects=True, lists=True, endings=(CLOSE,)),
    knows_tool_calls=knows_tool_calls,
)
