"""JSON Schema, construct by construct: what a grammar lets through, and what none can express."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from agent.errors import GrammarRefused
from protocol.grammar import Grammar
from tests.support.constrained import GRAMMARS, is_written


def closed(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An object of exactly these properties, as strict schemas have them."""
    given = {"type": "object", "properties": properties, "required": list(properties)}
    return {**given, "additionalProperties": False, **more}


def is_let_through(schema: Any, value: Any) -> bool:
    """Whether a model that is held to the schema could write this value, and end there."""
    return is_written(schema, json.dumps(value))


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
        pytest.param({"type": "object", "minProperties": 1}, {"a": 1}, {}, id="minProperties"),
        pytest.param(
            {"type": "object", "maxProperties": 1}, {"a": 1}, {"a": 1, "b": 2}, id="maxProperties"
        ),
        pytest.param(
            {"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"]},
            {"a": None, "more": 1},
            {"more": 1},
            id="required",
        ),
        pytest.param(
            {
                "type": "object",
                "propertyNames": {"type": "string"},
                "additionalProperties": {"type": "integer"},
            },
            {"a": 1},
            {"a": "b"},
            id="a record, as generators write it",
        ),
        pytest.param(
            closed({"propertyNames": {"type": "string"}}),
            {"propertyNames": "a"},
            {"propertyNames": 1},
            id="a property that is called as a keyword is",
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
        ({"properties": {"a": {}}, "minProperties": 1}, "`minProperties`"),
        ({"type": "object", "minProperties": 2}, "`minProperties` 2"),
        ({"patternProperties": {"^a": {}, "b$": {}}}, "`patternProperties`"),
        ({"type": "object", "unevaluatedProperties": False}, "`unevaluatedProperties`"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "`dependentRequired`"),
        ({"type": "object", "propertyNames": {"maxLength": 3}}, "`propertyNames`"),
        ({"if": {"type": "null"}, "then": {"const": None}}, "`if`"),
        ({"oneOf": [{"minimum": 1}, {"maximum": 5}]}, "`oneOf`"),
        ({"$ref": "https://example.org/schema.json"}, "`$ref`"),
        ({"type": "string", "format": "shoe-size"}, "`format` shoe-size"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-ahead"),
        ({"type": "string", "pattern": "\\ba"}, "look-around"),
        ({"type": "string", "format": "email", "pattern": r"^\W+$", "maxLength": 30}, "`pattern`"),
        ({"type": "string", "pattern": "^a$", "minLength": 2}, "nothing fits"),
        ({"type": "integer", "multipleOf": 12347}, "`multipleOf` 12347"),
        ({"type": "number", "multipleOf": 0.07}, "`multipleOf` 0.07"),
        ({"type": "number", "multipleOf": 1e-300}, "`multipleOf` 1e-300"),
        ({"type": "integer", "multipleOf": -1}, "`multipleOf` -1"),
        ({"type": "integer", "minimum": 10**20}, "`minimum` 1"),
        ({"type": "integer", "minimum": -1e30, "maximum": -1e20}, "`maximum` -1"),
        ({"type": "number", "minimum": 1e-300, "maximum": 1}, "`minimum`"),
        ({"const": 2**53 + 1}, "`const`"),
        ({"enum": [{"a": [2**60]}]}, "`enum`"),
        ({"const": "\u0000"}, "`const`"),
        ({"type": "array", "minItems": 2, "maxItems": 1}, "nothing fits"),
        ({"$ref": "#/$defs/nowhere"}, "`$ref` #/$defs/nowhere"),
        ({"type": "shoe"}, "`type` shoe"),
    ],
)
def test_what_no_grammar_can_express_is_refused_by_its_name(schema: Any, named: str) -> None:
    nested = closed({"deep": {"type": "array", "items": schema, "minItems": 1}})
    for whole in (schema, nested):
        with pytest.raises(GrammarRefused) as refused:
            GRAMMARS.constraint(Grammar(kind="json_schema", text=json.dumps(whole)), None)
        assert named in str(refused.value)


TREE_OF_NAMES = {"type": "object", "properties": {"a": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        pytest.param(TREE_OF_NAMES, r'{"\u0061": "x"}', id="a name spelt in another way"),
        pytest.param(TREE_OF_NAMES, r'{"\ud800": 1}', id="a name with half a surrogate pair"),
        pytest.param(
            {"type": "object", "patternProperties": {"^a": {"type": "integer"}}},
            r'{"\u0061b": "x"}',
            id="a name beside its pattern",
        ),
        pytest.param({"format": "date"}, '"2023-02-29"', id="29 February"),
        pytest.param({"format": "date"}, '"1900-02-29"', id="29 February 1900"),
        pytest.param({"format": "date"}, '"0000-01-01"', id="the year 0"),
        pytest.param({"format": "date-time"}, '"2023-02-29T01:02:03Z"', id="a moment of that day"),
        pytest.param(
            {"format": "date-time", "pattern": "Z$"}, '"2023-02-29T01:02:03Z"', id="and a pattern"
        ),
        pytest.param({"format": "time"}, '"12:00:60Z"', id="second 60"),
        pytest.param({"format": "email"}, f'"{"a" * 65}@example.org"', id="a long local part"),
        pytest.param({"format": "email"}, f'"a@{"b" * 64}.org"', id="a long label"),
        pytest.param({"format": "email"}, f'"a@{".b" * 130}"'.replace("@.", "@"), id="an address"),
        pytest.param({"format": "hostname"}, f'"a{".b" * 127}"', id="a host's name"),
        pytest.param({"format": "hostname"}, '"a.xn--x.b"', id="a label that may be no punycode"),
        pytest.param(
            {"enum": ["a", "2023-02-29", "2024-02-29"], "format": "date"},
            '"2023-02-29"',
            id="29 February in an enum",
        ),
        pytest.param(
            {"type": "integer", "exclusiveMaximum": 2**60}, str(2**60), id="a maximum beyond 2^53"
        ),
        pytest.param(
            {"type": "integer", "maximum": 2**53 + 1}, str(2**53 + 2), id="a maximum in between"
        ),
        pytest.param(
            {"type": "number", "minimum": -(2**60)}, str(-(2**60) - 1), id="a minimum of 61 bits"
        ),
        pytest.param(
            {"properties": {"const": {"format": "date"}}},
            '{"const": "2023-02-29"}',
            id="under a property named as a keyword",
        ),
        pytest.param(
            {"$ref": "#/components/day", "components": {"day": {"format": "date"}}},
            '"2023-02-29"',
            id="where only a reference leads",
        ),
    ],
)
def test_what_the_library_alone_would_let_through_is_not(schema: Any, text: str) -> None:
    assert not is_written(schema, text)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"format": "date"}, "2000-02-29"),
        ({"format": "date"}, "0004-12-31"),
        ({"format": "date"}, "2024-11-30"),
        ({"format": "date-time"}, "2024-02-29T23:59:59.5+01:00"),
        ({"format": "time"}, "23:59:59z"),
        ({"format": "date"}, 5),
        ({"format": "email"}, f"{'a' * 64}@{'b' * 41}.example.org"),
        ({"format": "email"}, "a.b.c.d.e@[127.0.0.1]"),
        ({"format": "email", "pattern": "^a", "maxLength": 9}, "a@b.cd.ef"),
        ({"format": "email", "pattern": r"@example\.org$"}, "a@example.org"),
        ({"format": "hostname"}, "a-1.a-b-c.ab-c.de.example.org"),
        ({"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}, 2**62),
        ({"type": "integer", "minimum": 0, "maximum": 2**64 - 1}, 7),
        ({"type": "number", "minimum": -1e300, "maximum": 1e300}, 1.5),
        ({"type": "object", "required": ["a"], "minProperties": 2}, {"a": 1, "b": 2}),
        ({"type": "array", "uniqueItems": False}, [1, 1]),
        ({"not": False}, 1),
        ({"if": {"type": "null"}}, 1),
        ({"then": False}, 1),
        ({"type": "array", "minContains": 3}, [1]),
        ({"dependentRequired": {}}, {"a": 1}),
        ({"propertyNames": {}}, {"a": 1}),
        ({"unevaluatedProperties": True}, {"a": 1}),
        ({"$ref": "#/$defs/Straße 1", "$defs": {"Straße 1": {"type": "null"}}}, None),
        ({"$ref": "#/$defs/a~1b%20c", "$defs": {"a/b c": {"type": "null"}}}, None),
        ({"type": "number", "multipleOf": 0.01}, 0.5),
        ({"properties": {"format": {"type": "string"}}}, {"format": "date"}),
    ],
)
def test_what_can_be_expressed_is_not_refused(schema: Any, value: Any) -> None:
    jsonschema.validate(value, schema)
    assert is_let_through(schema, value)
