"""Tool calls as Mistral models write them, behind `[TOOL_CALLS]`.

Up to tokeniser version 7 a JSON list follows, later ones write `name[ARGS]{…}` (some with
`[CALL_ID]…` in between, some without `[ARGS]`) and the opening again before each call.
"""

from __future__ import annotations

import re

from agent.chat.tool_calls.format import ToolFormat, Writing
from agent.grammar.call_form import CallForm

OPEN = "[TOOL_CALLS]"
ARGUMENTS = "[ARGS]"
CALL_ID = "[CALL_ID]"

_NAMED = re.compile(
    r"(?P<name>[^\s\[\]{]+)\s*"
    rf"(?:{re.escape(CALL_ID)}\s*[A-Za-z0-9_-]*\s*)?(?:{re.escape(ARGUMENTS)}\s*)?"
)
_WRITING = Writing(openings=(OPEN,), objects=True, lists=True, named=_NAMED)
_SPECIALS = (OPEN, ARGUMENTS, CALL_ID)


def knows_tool_calls(template: str) -> bool:
    """Whether a chat template is for a model that writes the list."""
    return OPEN in template


def knows_named_calls(template: str) -> bool:
    """Whether a chat template is for a model that writes names and `[ARGS]`."""
    return OPEN in template and ARGUMENTS in template


FORMAT = ToolFormat(
    revision="mistral-1",
    form=CallForm(
        opening=OPEN,
        before_first="[",
        before_name='{"name": "',
        before_arguments='", "arguments": ',
        after_arguments="}",
        between_calls=", ",
        after_last="]",
        specials=_SPECIALS,
    ),
    writing=_WRITING,
    knows_tool_calls=knows_tool_calls,
    has_short_ids=True,
)
NAMED_FORMAT = ToolFormat(
    revision="mistral-named-1",
    form=CallForm(
        opening=OPEN,
        before_name="",
        before_arguments=ARGUMENTS,
        after_arguments="",
        between_calls=OPEN,
        specials=_SPECIALS,
    ),
    writing=_WRITING,
    knows_tool_calls=knows_named_calls,
    has_short_ids=True,
)
"""The same to a parser; another form for a grammar."""
