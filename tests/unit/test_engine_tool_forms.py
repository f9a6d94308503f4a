"""Every format of tool calls: what its grammar lets through is what its parser takes for calls."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import numpy as np
import pytest

from agent.chat.tool_calls.parser import CallParser
from agent.chat.tool_calls.table import TOOL_FORMATS
from agent.engine.sampling.grammar import Grammars
from agent.engine.sampling.grammar_constraint import GrammarConstraint
from agent.grammar.call_form import CallForm
from agent.grammar.tools import ToolGrammar, ToolSchema
from protocol.generation import ContentDelta, ToolCallDelta
from tests.support.words import Words

SCHEMAS: dict[str, dict[str, Any]] = {
    "weather": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 5}, "days": {"enum": [1, 12]}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
    "weather_now": {"type": "object", "properties": {}, "additionalProperties": False},
}
CALL = "<|call|>"
"""Ends an answer of Harmony's."""
SURE = [name for name, row in TOOL_FORMATS.items() if row.form.opening]


def grammar(form: CallForm, *, must_call: bool, several: bool = True) -> ToolGrammar:
    tools = tuple(
        ToolSchema(name, json.dumps(schema), binds=True, place=place)
        for place, (name, schema) in enumerate(SCHEMAS.items())
    )
    several = several and form.between_calls is not None
    return ToolGrammar(form=form, tools=tools, must_call=must_call, several=several)


def parsed(name: str, text: str) -> tuple[str, list[tuple[str, Any]]]:
    parser = CallParser(TOOL_FORMATS[name].writing, SCHEMAS.keys(), str, SCHEMAS)
    content, names, arguments = "", list[str](), dict[int, str]()
    for delta in [*parser.feed(text), *parser.finish()]:
        match delta:
            case ContentDelta(piece):
                content += piece
            case ToolCallDelta(index, _, called, piece):
                names += [called] if called else []
                arguments[index] = arguments.get(index, "") + piece
    return content, [(called, json.loads(arguments[i])) for i, called in enumerate(names)]


class Speaker:
    """A vocabulary with a format's marks as control tokens, or with none of them, and a text that
    is written in it."""

    def __init__(self, form: CallForm, *, has_control_tokens: bool) -> None:
        self.words = Words(control=form.specials if has_control_tokens else ())
        if has_control_tokens and CALL in form.specials:
            self.words.end_tokens = (*self.words.end_tokens, self.words.id_of(CALL))
        self.grammars = Grammars(self.words)
        self._bytes = bytearray()

    @property
    def text(self) -> str:
        """As the parsers see it, control tokens with it."""
        return self._bytes.decode()

    def say(self, constrained: GrammarConstraint, text: str) -> None:
        for token in self.words.tokenize(text).tolist():
            self._take(constrained, token)

    def say_anything(self, constrained: GrammarConstraint, seed: int) -> None:
        """Any allowed token up to the first end that may come."""
        numbers = np.random.default_rng(seed)
        while not constrained.allows(self.words.end_tokens[0]):
            self._take(constrained, int(numbers.choice(np.flatnonzero(constrained.mask()))))
            assert len(self._bytes) < 10_000

    def _take(self, constrained: GrammarConstraint, token: int) -> None:
        assert constrained.allows(token), (self._bytes, self.words.shown_pieces[token])
        constrained.accept(token)
        self._bytes += self.words.shown_pieces[token]


def assert_fit(calls: list[tuple[str, Any]]) -> None:
    for called, arguments in calls:
        jsonschema.validate(arguments, SCHEMAS[called])


@pytest.mark.parametrize("has_control_tokens", [False, True])
@pytest.mark.parametrize("name", TOOL_FORMATS)
def test_a_demanded_call_is_one_to_its_parser(name: str, has_control_tokens: bool) -> None:
    form = TOOL_FORMATS[name].form
    for seed in range(6):
        speaker = Speaker(form, has_control_tokens=has_control_tokens)
        demanded = speaker.grammars.constraint(None, None, grammar(form, must_call=True))
        speaker.say_anything(demanded, seed)
        content, calls = parsed(name, speaker.text)
        assert calls, speaker.text
        assert not content, speaker.text
        assert_fit(calls)


@pytest.mark.parametrize("has_control_tokens", [False, True])
@pytest.mark.parametrize("name", SURE)
def test_a_call_behind_text_is_one_to_its_parser(name: str, has_control_tokens: bool) -> None:
    form = TOOL_FORMATS[name].form
    for seed in range(6):
        speaker = Speaker(form, has_control_tokens=has_control_tokens)
        once = grammar(form, must_call=False, several=False)
        possible = speaker.grammars.constraint(None, None, once)
        speaker.say(possible, f"the cat {form.opening}")
        assert not possible.allows(speaker.words.id_of("the")), speaker.text
        speaker.say_anything(possible, seed)
        content, [call] = parsed(name, speaker.text)
        assert content.rstrip() == "the cat", speaker.text
        assert_fit([call])
