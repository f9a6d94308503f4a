"""A grammar that binds from an opening on is asked about next to no token before it, and allows
what it always did."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.chat.tool_calls.table import TOOL_FORMATS
from agent.engine.sampling.grammar import Grammars
from agent.engine.sampling.grammar_constraint import GrammarConstraint
from agent.errors import OutsideGrammar
from agent.grammar.call_form import CallForm
from agent.grammar.reasoning_block import ReasoningBlock
from agent.grammar.tools import ToolGrammar, ToolSchema
from protocol.grammar import Grammar
from tests.support.words import Words

HARMONY = TOOL_FORMATS["harmony"].form
PLAIN_WORDS = Words()
HARMONY_WORDS = Words(control=HARMONY.specials)
THINK = ReasoningBlock("<think>", "</think>")
MARKED = ReasoningBlock("<|start|>", "<|mark|>")
HERMES = TOOL_FORMATS["hermes"].form
SCHEMA = '{"type":"object","properties":{"a":{"type":"boolean"}},"additionalProperties":false}'


def tools(form: CallForm) -> ToolGrammar:
    tool = ToolSchema("the", SCHEMA, binds=True, place=0)
    several = form.between_calls is not None
    return ToolGrammar(form=form, tools=(tool,), must_call=False, several=several)


def triggered(trigger: str) -> dict[str, Any]:
    return {"grammar": Grammar(kind="regex", text="[ab]{2}", trigger=trigger)}


KINDS: dict[str, tuple[Words, dict[str, Any]]] = {
    "tools": (PLAIN_WORDS, {"tools": tools(HERMES)}),
    "tools behind thoughts": (PLAIN_WORDS, {"tools": tools(HERMES), "reasoning": THINK}),
    "tools behind a thought that has begun": (
        PLAIN_WORDS,
        {"tools": tools(HERMES), "reasoning": ReasoningBlock("<think>", "</think>", True)},
    ),
    "tools behind control tokens": (PLAIN_WORDS, {"tools": tools(HERMES), "reasoning": MARKED}),
    "channels": (HARMONY_WORDS, {"tools": tools(HARMONY)}),
    "a trigger": (PLAIN_WORDS, triggered("<tool_call>")),
    "a trigger that is a control token": (PLAIN_WORDS, triggered("<|mark|>")),
    "a trigger of one letter": (PLAIN_WORDS, triggered("{")),
}
SNIPPETS = (
    *("the cat ", "<tool_", "call>", "<tool_call>", '\n{"name": "the', "<think>", "</think>", "{"),
    *("é", "€", "<|mark|>", "<|start|>", "aab", "ab", " ", "to=", HARMONY.opening),
)


def new(kind: str) -> GrammarConstraint:
    words, fields = KINDS[kind]
    grammars = _GRAMMARS.setdefault(id(words), Grammars(words))
    return grammars.constraint(fields.get("grammar"), fields.get("reasoning"), fields.get("tools"))


_GRAMMARS: dict[int, Grammars] = {}


def asked_about_everything(kind: str) -> GrammarConstraint:
    constrained = new(kind)
    constrained.rollback(0)
    assert not constrained.is_asleep
    return constrained


def tokens_of(words: Words, parts: list[str | int]) -> list[int]:
    """Of snippets, and of single tokens as they are."""
    tokens: list[int] = []
    for part in parts:
        tokens += [part % words.size] if isinstance(part, int) else words.tokenize(part).tolist()
    return tokens


@settings(max_examples=60, deadline=None)
@example(kind="tools", parts=[194, 292])
@given(
    kind=st.sampled_from(list(KINDS)),
    parts=st.lists(st.sampled_from(SNIPPETS) | st.integers(0, 400), max_size=12),
)
def test_at_every_token_it_allows_what_it_would_if_it_were_asked_about_each(
    kind: str, parts: list[str | int]
) -> None:
    words, _ = KINDS[kind]
    lazy, plain = new(kind), asked_about_everything(kind)
    for token in tokens_of(words, parts):
        allowed = plain.mask()
        assert [lazy.allows(each) for each in range(words.size)] == allowed.tolist()
        if token in words.end_tokens and not allowed[token]:
            continue  # an end is never told to a grammar that does not allow it
        if not allowed[token]:
            with pytest.raises(OutsideGrammar):
                lazy.accept(token)
            continue
        if not lazy.passes(token):
            lazy.accept(token)
        plain.accept(token)
        assert lazy.is_complete == plain.is_complete
        if token in words.end_tokens:
            return
    assert np.array_equal(lazy.mask(), plain.mask())


@pytest.mark.parametrize("kind", KINDS)
def test_long_text_passes_and_the_opening_wakes_it(kind: str) -> None:
    words, fields = KINDS[kind]
    lazy = new(kind)
    passed = 0
    text = words.tokenize("the cat and the other cat " * 40).tolist()
    for token in text:
        if lazy.passes(token):
            passed += 1
        else:
            lazy.accept(token)
    slept = [lazy.is_asleep]
    assert passed > 0.95 * len(text)
    opening = fields["tools"].form.opening if "tools" in fields else fields["grammar"].trigger
    for token in words.tokenize(opening).tolist():
        lazy.accept(token)
    slept.append(lazy.is_asleep)
    assert slept == [True, False]
    assert not lazy.passes(words.id_of("the"))


def test_what_is_demanded_binds_at_once() -> None:
    must = ToolGrammar(form=HERMES, tools=tools(HERMES).tools, must_call=True, several=True)
    constrained = Grammars(PLAIN_WORDS).constraint(None, None, must)
    assert not constrained.is_asleep
    assert not constrained.passes(PLAIN_WORDS.id_of("the"))


def test_what_was_passed_can_be_undone() -> None:
    lazy = new("tools")
    for token in PLAIN_WORDS.tokenize("the cat <tool_call>").tolist():
        if not lazy.passes(token):
            lazy.accept(token)
    assert not lazy.allows(PLAIN_WORDS.id_of("the"))
    lazy.rollback(1)
    assert lazy.allows(PLAIN_WORDS.id_of("the"))
