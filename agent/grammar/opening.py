"""From where on a grammar binds: what stands before it, whatever it is, is free. Pure."""

from __future__ import annotations

from agent.grammar.tools import ToolGrammar
from protocol.grammar import Grammar


def opening_of(grammar: Grammar | None, tools: ToolGrammar | None) -> str:
    """The text before whose end nothing is held to anything; empty: all of the answer is."""
    if grammar is not None:
        return grammar.trigger if tools is None else ""
    return "" if tools is None or tools.must_call else tools.form.opening
