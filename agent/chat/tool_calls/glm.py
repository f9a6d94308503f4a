"""Tool calls as GLM-4.5 and later write them: the name, then pairs of `<arg_key>` and
`<arg_value>`."""

from __future__ import annotations

import re

from agent.chat.tool_calls.format import Tagged, ToolFormat, Writing
from agent.grammar.call_form import CallForm, TagForm

OPEN = "<tool_call>"
CLOSE = "</tool_call>"
KEY = "<arg_key>"
KEY_END = "</arg_key>"
VALUE = "<arg_value>"
VALUE_END = "</arg_value>"


def knows_tool_calls(template: str) -> bool:
    """Whether a chat template is for a model that writes this format."""
    return KEY in template and VALUE in template


FORMAT = ToolFormat(
    revision="glm-1",
    form=CallForm(
        opening=OPEN,
        before_name="",
        before_arguments="\n",
        after_arguments=CLOSE,
        between_calls="\n" + OPEN,
        specials=(OPEN, CLOSE, KEY, KEY_END, VALUE, VALUE_END),
        tags=TagForm(
            before_key=KEY,
            after_key=f"{KEY_END}\n{VALUE}",
            value_end=VALUE_END,
            after_value=f"{VALUE_END}\n",
        ),
    ),
    writing=Writing(
        openings=(OPEN,),
        tagged=Tagged(
            head=re.compile(r"(?P<name>[^\s<>{]+)[ \t\r]*"),
            head_end=re.compile(r"(?=[\n<])"),
            before_key=KEY,
            key_end=re.compile(rf"{KEY_END}\s*{VALUE}"),
            after_value=VALUE_END,
            close=CLOSE,
        ),
    ),
    knows_tool_calls=knows_tool_calls,
)
