"""Tool calls as Llama 3.1 to 3.3 write them: the answer is `{"name": …, "parameters": {…}}`.

Several stand one below the other, or with a `;` between them; `<|python_tag|>` may stand in front.
Nothing tells a call from an answer in JSON but the name of a tool, so it is held until it is whole.
"""

from __future__ import annotations

from agent.chat.tool_calls.format import ToolFormat, Writing
from agent.grammar.call_form import CallForm

PYTHON_TAG = "<|python_tag|>"
_HEADER = "<|start_header_id|>"


def knows_tool_calls(template: str) -> bool:
    """Whether a chat template is for a model that writes this format."""
    return PYTHON_TAG in template or (_HEADER in template and '"parameters"' in template)


FORMAT = ToolFormat(
    revision="llama-1",
    form=CallForm(
        opening="",
        before_name='{"name": "',
        before_arguments='", "parameters": ',
        after_arguments="}",
        between_calls="; ",
        specials=(PYTHON_TAG,),
    ),
    writing=Writing(openings=(PYTHON_TAG,), is_sure=False, objects=True, separators=(";",)),
    knows_tool_calls=knows_tool_calls,
)
