"""Tool calls as MiniMax-M2 writes them: in one block an `<invoke>` for each, in it a `<parameter>`
for each argument."""

from __future__ import annotations

import re

from agent.chat.tool_calls.format import Tagged, ToolFormat, Writing
from agent.grammar.call_form import CallForm, TagForm

OPEN = "<minimax:tool_call>"
CLOSE = "</minimax:tool_call>"
INVOKE = '<invoke name="'
INVOKE_END = "</invoke>"
PARAMETER = '<parameter name="'
PARAMETER_END = "</parameter>"


def knows_tool_calls(template: str) -> bool:
    """Whether a chat template is for a model that writes this format."""
    return "minimax:tool_call" in template


FORMAT = ToolFormat(
    revision="minimax-1",
    form=CallForm(
        opening=OPEN,
        before_first="\n",
        before_name=INVOKE,
        before_arguments='">\n',
        after_arguments=INVOKE_END + "\n",
        between_calls="",
        after_last=CLOSE,
        specials=(OPEN, CLOSE),
        tags=TagForm(
            before_key=PARAMETER,
            after_key='">',
            value_end=PARAMETER_END,
            after_value=PARAMETER_END + "\n",
        ),
    ),
    writing=Writing(
        openings=(OPEN, INVOKE),
        tagged=Tagged(
            head=re.compile(rf'(?:{INVOKE})?(?P<name>[^\s"<>]+)"\s*>'),
            head_end=re.compile(">"),
            before_key=PARAMETER,
            key_end=re.compile(r'"\s*>'),
            after_value=PARAMETER_END,
            close=INVOKE_END,
            soft_closes=(CLOSE,),
        ),
        endings=(CLOSE,),
    ),
    knows_tool_calls=knows_tool_calls,
)
