"""Arguments between tags under a grammar: what may be written is what the schema allows, whatever
the format's tags are, and what its parser makes JSON of fits."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from agent.chat.tool_calls.parser import CallParser
from agent.chat.tool_calls.table import TOOL_FORMATS
from agent.engine.sampling.grammar import Grammars
from agent.engine.sampling.grammar_constraint import GrammarConstraint
from agent.errors import GrammarRefused
from agent.grammar.grammar_frames import CompileJob, CompileReply
from agent.grammar.grammar_worker import checked
from agent.grammar.tools import ToolGrammar, ToolSchema
from protocol.generation import ContentDelta, ToolCallDelta
from tests.support.constrained import random_sentence, refuses, take
from tests.support.words import Words
from tests.support.written_calls import written

TAGGED = [name for name, row in TOOL_FORMATS.items() if row.form.tags is not None]
OF_ALL_KINDS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "code": {"type": "string", "minLength": 2, "maxLength": 4},
        "unit": {"enum": ["metric", "imperial", ""]},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "exact": {"type": "boolean"},
        "place": {"$ref": "#/$defs/place"},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 3}, "maxItems": 2},
        "kind": {"const": "fast"},
    },
    "required": ["code", "days", "place"],
    "additionalProperties": False,
    "$defs": {
        "place": {
            "type": "object",
            "properties": {"zip": {"type": "string", "pattern": "^[0-9]{3}$"}},
            "required": ["zip"],
            "additionalProperties": False,
        }
    },
}
WORDS = Words()
GRAMMARS = Grammars(WORDS)


def must_call(name: str, schema: Any) -> GrammarConstraint:
    """What a call of the tool `f` with this schema is held to; empty: it has given way."""
    tool = ToolSchema("f", json.dumps(schema) if schema else "", binds=True, place=0)
    form = TOOL_FORMATS[name].form
    return GRAMMARS.constraint(
        None, None, ToolGrammar(form, (tool,), must_call=True, several=False)
    )


def object_of(properties: dict[str, Any], *required: str, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), **more}


def text_of(name: str, arguments: dict[str, Any]) -> str:
    """A whole answer that calls `f`."""
    form = TOOL_FORMATS[name].form
    call = form.before_name + "f" + form.before_arguments + written(form, arguments)
    return form.opening + form.before_first + call + form.after_arguments + form.after_last


def begun(name: str, schema: Any, *arguments: str) -> GrammarConstraint:
    """A call up to the value of its last argument, which is left out; those before are `x`."""
    form = TOOL_FORMATS[name].form
    assert form.tags is not None
    *before, last = arguments
    text = form.opening + form.before_first + form.before_name + "f" + form.before_arguments
    text += written(form, dict.fromkeys(before, "x")) + form.tags.before_key + last
    return take(must_call(name, schema), text + form.tags.after_key)


def arguments_in(name: str, text: str, schema: Any) -> Any:
    """What the parser makes of an answer that is one call."""
    arguments = ""
    parser = CallParser(TOOL_FORMATS[name].writing, {"f"}, str, {"f": schema})
    for delta in [*parser.feed(text), *parser.finish()]:
        assert not isinstance(delta, ContentDelta), text
        arguments += delta.arguments if isinstance(delta, ToolCallDelta) else ""
    return json.loads(arguments)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", TAGGED)
def test_whatever_may_be_written_fits_the_schema_once_it_is_parsed(name: str, seed: int) -> None:
    tokens = random_sentence(must_call(name, OF_ALL_KINDS), seed)
    text = WORDS.text_of(tokens).decode()
    jsonschema.validate(arguments_in(name, text, OF_ALL_KINDS), OF_ALL_KINDS)


@pytest.mark.parametrize(
    ("schema", "arguments"),
    [
        (OF_ALL_KINDS, {"code": "a\nb", "days": 14, "place": {"zip": "123"}, "kind": "fast"}),
        (OF_ALL_KINDS, {"code": "ab", "unit": "", "days": 1, "place": {"zip": "123"}, "tags": []}),
        (object_of({"x": {"type": "string"}}), {}),
        (object_of({"x": {"type": "string"}}), {"x": 'def f():\n  return "<a></a>"\n'}),
        (object_of({"x": {"type": ["string", "null"]}}), {"x": None}),
        (object_of({"x": {"anyOf": [{"type": "string"}, {"type": "integer"}]}}), {"x": 7}),
        (object_of({"x": {"description": "anything"}, "y": True}), {"x": [1], "y": "one two"}),
        (object_of({"x": {"type": "string", "format": "uri"}}), {"x": "http://a"}),
        (object_of({"x": {"type": ["string", "array"]}}), {"x": [1]}),
        (object_of({}), {"whatever": [1, 2], "comes": "along"}),
        ({}, {"whatever": "comes along"}),
        (object_of({}, additionalProperties=False), {}),
    ],
)
@pytest.mark.parametrize("name", TAGGED)
def test_what_fits_may_be_written_and_comes_back(name: str, schema: Any, arguments: Any) -> None:
    text = text_of(name, arguments)
    answer = take(must_call(name, schema), text)
    assert answer.is_complete
    assert arguments_in(name, text, schema) == arguments


@pytest.mark.parametrize(
    ("properties", "value"),
    [
        ({"x": {"type": "integer"}}, "the"),
        ({"x": {"type": "boolean"}}, "null"),
        ({"x": {"enum": ["a", "b"]}}, "cat"),
        ({"x": {"const": "abc"}}, "xy"),
        ({"x": {"type": "object"}}, "["),
    ],
)
@pytest.mark.parametrize("name", TAGGED)
def test_what_does_not_fit_is_refused(name: str, properties: dict[str, Any], value: str) -> None:
    assert refuses(begun(name, object_of(properties), "x"), value)


@pytest.mark.parametrize("name", TAGGED)
def test_a_string_is_as_long_as_it_may_be_and_no_longer(name: str) -> None:
    properties = {"x": {"type": "string", "minLength": 2, "maxLength": 3}}
    form = TOOL_FORMATS[name].form
    assert form.tags is not None
    for value in ("ab", "abc"):
        take(begun(name, object_of(properties), "x"), value + form.tags.after_value)
    for value in ("", "a", "abcx"):
        with pytest.raises(AssertionError):
            take(begun(name, object_of(properties), "x"), value + form.tags.after_value)


@pytest.mark.parametrize("name", TAGGED)
def test_what_is_required_must_come(name: str) -> None:
    schema = object_of({"a": {"type": "string"}, "b": {"type": "string"}}, "b")
    form = TOOL_FORMATS[name].form
    assert form.tags is not None
    answer = begun(name, schema, "a")
    take(answer, "x" + form.tags.after_value)
    take(answer, form.tags.before_key)
    assert refuses(answer, "a")
    take(answer, "b")


@pytest.mark.parametrize(
    ("schema", "construct"),
    [
        (object_of({"x": {"type": "string", "pattern": "^a$"}}), "pattern"),
        (object_of({"x": {"type": "string", "anyOf": [{"minLength": 2}]}}), "anyOf"),
        (object_of({"x": {"type": "string", "maxLength": 10**9}}), "maxLength"),
        (object_of({"x": {"enum": ["a</parameter>", "b</arg_value>"]}}), "enum"),
        (object_of({"x": {"type": "integer", "not": {}}}), "not"),
        (object_of({"x": False}), "properties"),
        (object_of({"a b": {"type": "string"}}), "properties"),
        (object_of({"x": {"type": "string"}}, "y"), "required"),
        (object_of({}, patternProperties={}), "patternProperties"),
        (object_of({}, anyOf=[{}]), "anyOf"),
    ],
)
@pytest.mark.parametrize("name", TAGGED)
def test_what_cannot_be_held_to_is_refused_by_name(name: str, schema: Any, construct: str) -> None:
    with pytest.raises(GrammarRefused, match=f"`{construct}`"):
        must_call(name, schema)


@pytest.mark.parametrize("name", TAGGED)
def test_the_tool_that_cannot_be_held_is_named_or_gives_way_alone(name: str) -> None:
    schemas = (OF_ALL_KINDS, object_of({"x": {"type": "string", "pattern": "^a$"}}))

    def reply(*, binds: bool) -> CompileReply:
        tools = tuple(
            ToolSchema(f"f{place}", json.dumps(schema), binds=binds, place=place)
            for place, schema in enumerate(schemas)
        )
        form = TOOL_FORMATS[name].form
        grammar = ToolGrammar(form, tools, must_call=False, several=True)
        return checked(CompileJob(grammar=None, reasoning=None, tools=grammar))

    assert reply(binds=True).at_fault == "tools[1]"
    assert "`pattern`" in reply(binds=True).refusal
    assert reply(binds=False) == CompileReply(loose=(1,))
