"""Tool calls as Qwen3-Coder writes them: a tag for the function and one for each parameter.

`<tool_call>` may be missing in front, which such models forget now and then.
"""

from __future__ import annotations

import re

from agent.chat.tool_calls.format import Tagged, ToolFormat, Writing
from agent.grammar.call_form import CallForm, TagForm

OPEN = "<tool_call>"
CLOSE = "</tool_call>"
FUNCTION = "<function="
FUNCTION_END = "</function>"
PARAMETER = "<parameter="
PARAMETER_END = "</parameter>"


def knows_tool_calls(template: str) -> bool:
    """Whether a chat template is for a model that writes this format."""
    return FUNCTION in template and PARAMETER in template


FORMAT = ToolFormat(
    revision="qwen-coder-1",
    form=CallForm(
        opening=OPEN,
        before_name="\n" + FUNCTION,
        before_arguments=">\n",
        after_arguments=f"{FUNCTION_END}\n{CLOSE}",
        between_calls="\n" + OPEN,
        specials=(OPEN, CLOSE),
        tags=TagForm(
            before_key=PARAMETER,
            after_key=">\n",
            value_end=PARAMETER_END,
            after_value=f"\n{PARAMETER_END}\n",
        ),
    ),
    writing=Writing(
        openings=(OPEN, FUNCTION),
        tagged=Tagged(
            head=re.compile(rf"(?:{FUNCTION})?\s*(?P<name>[^\s<>=]+)\s*>"),
            head_end=re.compile(">"),
            before_key=PARAMETER,
            key_end=re.compile(">"),
            after_value=PARAMETER_END,
            close=FUNCTION_END,
            soft_closes=(CLOSE,),
            has_lines=True,
        ),
        endings=(CLOSE,),
    ),
    knows_tool_calls=knows_tool_calls,
)
