"""What the tool calls of each format look like as text."""

from __future__ import annotations

from agent.grammar.call_form import CallForm

__all__ = ["HERMES", "CallForm"]

HERMES = CallForm(
    opening="<tool_call>",
    before_name='\n{"name": "',
    before_arguments='", "arguments": ',
    after_arguments="}\n</tool_call>",
    between_calls="\n<tool_call>",
    specials=("<tool_call>", "</tool_call>"),
)
