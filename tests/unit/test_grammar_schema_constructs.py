"""JSON Schema, construct by construct: what a grammar lets through, and what none can express."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from agent.engine.sampling.grammar import Grammars
from agent.errors import GrammarRefused
from protocol.grammar import Grammar
from tests.support.words import Words

WORDS = Words()
GRAMMARS = Grammars(WORDS)
END, _ = WORDS.end_tokens


def closed(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An object of exactly these properties, as strict schemas have them."""
    given = {"type": "object", "properties": properties, "required": list(properties)}
    return {**given, "additionalProperties": False, **more}


def is_let_through(schema: Any, value: Any) -> bool:
    """Whether a model that is held to the schema could write this value, and end there."""
    constraint = GRAMMARS.constraint(Grammar(kind="json_schema", text=json.dumps(schema)), None)
    for token in WORDS.tokenize(json.dumps(value)).tolist():
        if not constraint.allows(token):
            return False
        constraint.accept(token)
    return constraint.allows(END)


TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": closed(
            {
                "name": {"type": "string"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            }
        )
    },
}
LEAF: dict[str, Any] = {"name": "a", "children": []}


@pytest.mark.parametrize(
    ("schema", "fits", "does_not"),
    [
        pytest.param(
            closed({"a": closed({"b": closed({"c": {"type": "null"}})})}),
            {"a": {"b": {"c": None}}},
            {"a": {"b": {"c": 1}}},
            id="nested objects",
        ),
        pytest.param(
            {"type": "array", "items": {"type": "boolean"}}, [True, False], [1], id="arrays"
        ),
        pytest.param({"type": "array", "minItems": 2}, [1, 2], [1], id="minItems"),
        pytest.param({"type": "array", "maxItems": 2}, [1, 2], [1, 2, 3], id="maxItems"),
        pytest.param(
            {"type": "array", "prefixItems": [{"type": "null"}], "items": {"type": "integer"}},
            [None, 1],
            [1],
            id="prefixItems",
        ),
        pytest.param({"enum": ["a", 2, None]}, 2, "b", id="enum"),
        pytest.param({"const": {"a": [1]}}, {"a": [1]}, {"a": [2]}, id="const"),
        pytest.param(
            TREE, {"name": "b", "children": [LEAF]}, {"name": "b", "children": [1]}, id="$ref"
        ),
        pytest.param({"anyOf": [{"type": "integer"}, {"type": "null"}]}, None, "a", id="anyOf"),
        pytest.param(
            {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 5}]}, 4, 6, id="allOf"
        ),
        pytest.param({"type": "string", "pattern": "^[a-c]{2}$"}, "ab", "ad", id="pattern"),
        pytest.param({"type": "string", "minLength": 2}, "ab", "a", id="minLength"),
        pytest.param({"type": "string", "maxLength": 2}, "ab", "abc", id="maxLength"),
        pytest.param({"type": "string", "format": "date"}, "2024-02-29", "today", id="format"),
        pytest.param({"type": "integer", "minimum": 7}, 7, 6, id="minimum"),
        pytest.param({"type": "integer", "maximum": 1200}, 1200, 1201, id="maximum"),
        pytest.param({"type": "number", "exclusiveMinimum": 0}, 0.5, 0, id="exclusiveMinimum"),
        pytest.param({"type": "number", "exclusiveMaximum": 1}, 0.5, 1, id="exclusiveMaximum"),
        pytest.param({"type": "integer", "multipleOf": 5}, 15, 16, id="multipleOf"),
        pytest.param({"type": ["string", "null"]}, None, 1, id="types"),
        pytest.param(
            {"type": "object", "additionalProperties": {"type": "integer"}},
            {"any": 1},
            {"any": "a"},
            id="additionalProperties",
        ),
        pytest.param(
            {"patternProperties": {"^x": {"type": "null"}}, "type": "object"},
            {"xa": None},
            {"xa": 1},
            id="patternProperties",
        ),
        pytest.param(
            {"type": "object", "minProperties": 2}, {"a": 1, "b": 2}, {"a": 1}, id="minProperties"
        ),
        pytest.param(
            {"type": "object", "maxProperties": 1}, {"a": 1}, {"a": 1, "b": 2}, id="maxProperties"
        ),
        pytest.param(
            {"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"]},
            {"a": None, "more": 1},
            {"more": 1},
            id="required",
        ),
    ],
)
def test_a_construct_is_held_to(schema: Any, fits: Any, does_not: Any) -> None:
    jsonschema.validate(fits, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(does_not, schema, format_checker=jsonschema.FormatChecker())
    assert is_let_through(schema, fits)
    assert not is_let_through(schema, does_not)


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"not": {"type": "null"}}, "`not`"),
        ({"type": "array", "uniqueItems": True}, "`uniqueItems`"),
        ({"type": "array", "contains": {"const": 1}}, "`contains`"),
        ({"properties": {"a": {}}, "minProperties": 2}, "min/maxProperties"),
        ({"type": "object", "unevaluatedProperties": False}, "`unevaluatedProperties`"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "`dependentRequired`"),
        ({"type": "object", "propertyNames": {"maxLength": 3}}, "`propertyNames`"),
        ({"if": {"type": "null"}, "then": {"const": None}}, "`if`"),
        ({"oneOf": [{"minimum": 1}, {"maximum": 5}]}, "`oneOf`"),
        ({"$ref": "https://example.org/schema.json"}, "`$ref`"),
        ({"type": "string", "format": "shoe-size"}, "`format` shoe-size"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-ahead"),
        ({"type": "integer", "multipleOf": 12347}, "`multipleOf`"),
    ],
)
def test_what_no_grammar_can_express_is_refused_by_its_name(schema: Any, named: str) -> None:
    nested = closed({"deep": {"type": "array", "items": schema, "minItems": 1}})
    for whole in (schema, nested):
        with pytest.raises(GrammarRefused) as refused:
            GRAMMARS.constraint(Grammar(kind="json_schema", text=json.dumps(whole)), None)
        assert named in str(refused.value)
