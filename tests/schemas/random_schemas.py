"""JSON schemas by number: every construct in turn at the centre, others at random around it.

A schema of a number and a seed is always the same. Constructs that no grammar can express come in
as centres alone, so that one of them in a schema does not hide the others.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tests.schemas.ingredients import (
    FORMATS,
    NAME_PATTERNS,
    NAMES,
    PATTERN_PARTS,
    PATTERNS,
    STEPS,
    UNKNOWN_FORMATS,
    WORDS,
)

Schema = dict[str, Any] | bool

MOST_DEPTH = 3


class SchemaMaker:
    """Makes one schema; all its choices come from the dice."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._definitions: dict[str, Schema] = {}

    def document(self, centre: str) -> dict[str, Any]:
        """A whole schema with this construct in it: at its top, or somewhere inside."""
        made: Schema = CENTRES[centre](self, MOST_DEPTH - 1)
        for _ in range(self._dice.choice((0, 1, 1, 2))):
            made = self._around(made)
        whole = made if isinstance(made, dict) else {"type": "array", "items": made, "maxItems": 2}
        if self._definitions:
            whole = {**whole, "$defs": self._definitions}
        if self._one_in(4):
            whole = {"title": "A thing", "description": "For 👀 only", **whole}
        return whole

    def anything(self, depth: int) -> Schema:
        """Any schema that a grammar may be able to express."""
        makers = LEAVES if depth <= 0 or self._one_in(3) else (*LEAVES, *NESTS, *NESTS)
        return self._dice.choice(makers)(self, depth)

    def _around(self, inner: Schema) -> Schema:
        """A schema whose instances have one of the inner schema's in them."""
        match self._dice.randrange(5):
            case 0:
                return {"type": "array", "items": inner, "minItems": 1, "maxItems": 2}
            case 1:
                return {"anyOf": [inner, {"type": "null"}]}
            case 2:
                return self.reference(inner)
            case _:
                name, other = self._dice.sample(NAMES, 2)
                properties = {name: inner, other: self.anything(0)}
                closed = {"type": "object", "properties": properties, "required": [name]}
                return {**closed, "additionalProperties": False}

    def _one_in(self, number: int) -> bool:
        return self._dice.randrange(number) == 0

    def _some(self, values: tuple[Any, ...], least: int, most: int) -> list[Any]:
        return self._dice.sample(values, self._dice.randint(least, most))

    # Leaves

    def text(self, _depth: int) -> Schema:
        """Strings, most of them bounded: a small model writes on in those that are not."""
        least = self._dice.choice((0, 0, 1, 3))
        made: dict[str, Any] = {"type": "string", "maxLength": least + self._dice.randint(1, 12)}
        if least:
            made["minLength"] = least
        if self._one_in(8):
            del made["maxLength"]
        return made

    def pattern(self, _depth: int) -> Schema:
        made: dict[str, Any] = {"type": "string", "pattern": self._dice.choice(PATTERNS)}
        if self._one_in(2):
            made["maxLength"] = 20
        return made

    def own_pattern(self, _depth: int) -> Schema:
        """A regular expression of random parts."""
        often = ("", "", "?", "{2}", "{1,3}", "{0,2}")
        inner = "".join(
            self._dice.choice(PATTERN_PARTS) + self._dice.choice(often)
            for _ in range(self._dice.randint(1, 4))
        )
        start, end = self._dice.choice((("^", "$"), ("^", "$"), ("^", ""), ("", "$"), ("", "")))
        return {"type": "string", "pattern": f"{start}{inner}{end}", "maxLength": 24}

    def format(self, _depth: int) -> Schema:
        made: dict[str, Any] = {"type": "string", "format": self._dice.choice(FORMATS)}
        if made["format"] in ("email", "hostname", "uri") or self._one_in(4):
            made["maxLength"] = 40
        return made

    def integer(self, _depth: int) -> Schema:
        return {"type": "integer", **self._range(lambda: self._dice.randint(-1000, 1000))}

    def number(self, _depth: int) -> Schema:
        places = self._dice.randrange(4)
        return {
            "type": "number",
            **self._range(lambda: round(self._dice.uniform(-50, 50), places)),
        }

    def _range(self, bound: Callable[[], float]) -> dict[str, Any]:
        low, high = sorted((bound(), bound()))
        made: dict[str, Any] = {}
        if not self._one_in(4):
            made[self._dice.choice(("minimum", "exclusiveMinimum"))] = low
        if not self._one_in(4):
            made[self._dice.choice(("maximum", "exclusiveMaximum"))] = high + 1
        return made

    def multiple(self, _depth: int) -> Schema:
        made: dict[str, Any] = {"type": self._dice.choice(("integer", "number"))}
        made["multipleOf"] = self._dice.choice(STEPS)
        if self._one_in(2):
            made |= {"minimum": self._dice.choice((-5, 0, 0.5, 3)), "maximum": 5000}
        return made

    def enum(self, depth: int) -> Schema:
        return {"enum": [self.value(depth) for _ in range(self._dice.randint(1, 4))]}

    def typed_enum(self, _depth: int) -> Schema:
        """An enum of which its type allows a part only."""
        texts = self._some(WORDS, 1, 3)
        return {"type": "string", "enum": [*texts, 5, None], "maxLength": 10}

    def const(self, depth: int) -> Schema:
        return {"const": self.value(depth)}

    def value(self, depth: int) -> Any:
        """Any JSON."""
        match self._dice.randrange(9 if depth > 0 else 6):
            case 0 | 1:
                return self._dice.choice(WORDS)
            case 2:
                return self._dice.randint(-9, 99)
            case 3:
                return self._dice.choice((0.5, -1.25, 1e3, 0, 1e-3))
            case 4:
                return self._dice.choice((True, False))
            case 5:
                return None
            case 6:
                return [self.value(depth - 1) for _ in range(self._dice.randrange(3))]
            case _:
                return {name: self.value(depth - 1) for name in self._some(NAMES, 0, 2)}

    def boolean(self, _depth: int) -> Schema:
        return {"type": "boolean"}

    def null(self, _depth: int) -> Schema:
        return {"type": "null"}

    def types(self, _depth: int) -> Schema:
        """Several types, with keywords that bind only one of them each."""
        types = self._some(("string", "integer", "number", "boolean", "null", "array"), 2, 3)
        return {"type": types, "maxLength": 6, "minimum": 3, "maximum": 70, "maxItems": 2}

    def untyped(self, _depth: int) -> Schema:
        """Keywords that bind only values of their type: all others fit."""
        keywords = ({"minimum": 5}, {"maxLength": 3}, {"maxItems": 2}, {"required": ["a"]},
                    {"pattern": "^a"}, {"format": "date"}, {"multipleOf": 4})  # fmt: skip
        return dict(self._dice.choice(keywords))

    def boolean_schema(self, _depth: int) -> Schema:
        return self._dice.choice((True, {}, True, False))

    # Nests

    def object(self, depth: int) -> Schema:
        """Named properties, some of them required, others let in or not."""
        names = self._some(NAMES, 1, 4)
        made: dict[str, Any] = {
            "type": "object",
            "properties": {name: self.anything(depth - 1) for name in names},
            "additionalProperties": False,
        }
        if required := [name for name in names if not self._one_in(3)]:
            made["required"] = required
        match self._dice.randrange(6):
            case 0:
                del made["additionalProperties"]
            case 1:
                made["additionalProperties"] = True
            case 2:
                made["additionalProperties"] = self.anything(0)
        return made

    def closed(self, depth: int) -> Schema:
        """As strict clients send objects."""
        names = self._some(NAMES, 1, 4)
        properties = {name: self.anything(depth - 1) for name in names}
        made = {"type": "object", "properties": properties, "required": names}
        return {**made, "additionalProperties": False}

    def map(self, depth: int) -> Schema:
        made: dict[str, Any] = {"type": "object", "additionalProperties": self.anything(depth - 1)}
        if self._one_in(2):
            made["required"] = self._some(NAMES, 1, 2)
        return made

    def named_by_pattern(self, depth: int) -> Schema:
        patterns = self._some(NAME_PATTERNS, 1, 2)
        made: dict[str, Any] = {"type": "object"}
        made["patternProperties"] = {pattern: self.anything(depth - 1) for pattern in patterns}
        if self._one_in(2):
            made |= {"properties": {"x_1": self.anything(0), "a": self.anything(0)}}
            made["required"] = self._some(("x_1", "a", "x_2"), 0, 2)
        if self._one_in(2):
            made["additionalProperties"] = self._dice.choice((False, {"type": "null"}))
        return made

    def least_properties(self, depth: int) -> Schema:
        made: dict[str, Any] = {"type": "object", "minProperties": self._dice.randint(0, 2)}
        if self._one_in(3):
            made["properties"] = {"a": self.anything(0)}
        return {**made, "additionalProperties": self.anything(depth - 1)}

    def most_properties(self, depth: int) -> Schema:
        made: dict[str, Any] = {"type": "object", "maxProperties": self._dice.randint(0, 2)}
        return {**made, "additionalProperties": self.anything(depth - 1)}

    def array(self, depth: int) -> Schema:
        least = self._dice.randrange(3)
        made: dict[str, Any] = {"type": "array", "items": self.anything(depth - 1)}
        made["maxItems"] = least + self._dice.randint(0, 3)
        if least:
            made["minItems"] = least
        return made

    def tuple(self, depth: int) -> Schema:
        first = [self.anything(depth - 1) for _ in range(self._dice.randint(1, 3))]
        made: dict[str, Any] = {"type": "array", "prefixItems": first}
        made["items"] = self._dice.choice((False, self.anything(0)))
        if self._one_in(2):
            made["minItems"] = self._dice.randint(0, len(first))
        return {**made, "maxItems": 4}

    def any_of(self, depth: int) -> Schema:
        options = [self.anything(depth - 1) for _ in range(self._dice.randint(1, 3))]
        return {"anyOf": options}

    def any_of_objects(self, depth: int) -> Schema:
        """Options beside keywords that bind all of them."""
        first, second = self.anything(depth - 1), self.anything(depth - 1)
        options: list[Schema] = [
            {"properties": {"a": first}, "required": ["a"]},
            {"properties": {"b": second}, "required": ["b"]},
        ]
        return {"type": "object", "properties": {"kind": {"enum": ["x", "y"]}}, "anyOf": options}

    def one_of(self, depth: int) -> Schema:
        """Options of which no two fit at once, whichever way that can be told."""
        leaves: list[Schema] = [
            {"type": "boolean"},
            self.text(0),
            self.integer(0),
            {"type": "null"},
        ]
        objects: list[Schema] = [
            {
                "type": "object",
                "properties": {"kind": {"const": kind}, "a": self.anything(depth - 1)},
                "required": ["kind"],
                "additionalProperties": False,
            }
            for kind in ("x", "y", "é")
        ]
        return {"oneOf": self._some(tuple(self._dice.choice((leaves, objects))), 2, 3)}

    def all_of(self, depth: int) -> Schema:
        """Parts that go together, most of the time."""
        if self._one_in(3):
            return {"allOf": [self.integer(0), {"minimum": -500}, {"multipleOf": 2}]}
        if self._one_in(3):
            return {"allOf": [self.text(0), {"pattern": "^[a-z]"}]}
        parts: list[Schema] = [
            {"properties": {name: self.anything(depth - 1)}, "required": [name]}
            for name in self._some(NAMES, 2, 3)
        ]
        return {"type": "object", "allOf": parts}

    def reference(self, inner: Schema) -> Schema:
        """The schema by its name."""
        name = f"{self._dice.choice(('one', 'a b', 'x/y', 'é', '~'))}{len(self._definitions)}"
        self._definitions[name] = inner
        return {"$ref": f"#/$defs/{_pointer(name)}"}

    def referred(self, depth: int) -> Schema:
        made = self.reference(self.anything(depth - 1))
        if self._one_in(3):
            return {"allOf": [made], "description": "beside it"}
        return made

    def recursive(self, depth: int) -> Schema:
        """A tree or a list, whose nodes refer to their own schema."""
        name = f"node{len(self._definitions)}"
        self._definitions[name] = True  # so that the next one has another name
        itself = {"$ref": f"#/$defs/{name}"}
        children: Schema = {"type": "array", "items": itself, "maxItems": 2}
        following: Schema = {"anyOf": [{"type": "null"}, itself]}
        more = self._dice.choice(({"children": children}, {"next": following}))
        properties = {"value": self.anything(min(depth, 1) - 1), **more}
        node = {"type": "object", "properties": properties, "required": list(properties)}
        self._definitions[name] = {**node, "additionalProperties": False}
        return itself

    # What no grammar can express, or not in this place

    def refused(self, depth: int, keyword: str) -> Schema:
        """A schema with a keyword of `BEYOND`."""
        made = self.anything(depth - 1)
        base = dict(made) if isinstance(made, dict) else {}
        return {**base, **BEYOND[keyword]}

    def overlapping(self, _depth: int) -> Schema:
        return {"oneOf": [{"type": "integer"}, {"type": "number", "minimum": 3}]}

    def unknown_format(self, _depth: int) -> Schema:
        return {"type": "string", "format": self._dice.choice(UNKNOWN_FORMATS)}


def _pointer(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1").replace(" ", "%20")


BEYOND: dict[str, dict[str, Any]] = {
    "not": {"not": {"type": "null"}},
    "uniqueItems": {"type": "array", "items": {"enum": [1, 2, 3]}, "uniqueItems": True},
    "if": {"if": {"required": ["a"]}, "then": {"required": ["b"]}, "else": {"maxProperties": 1}},
    "dependentRequired": {"type": "object", "dependentRequired": {"a": ["b"]}},
    "contains": {"type": "array", "contains": {"const": 1}, "minContains": 1},
    "propertyNames": {"type": "object", "propertyNames": {"pattern": "^[a-z]+$"}},
}

_Maker = Callable[[SchemaMaker, int], Schema]


def _beyond(keyword: str) -> _Maker:
    return lambda maker, depth: maker.refused(depth, keyword)


LEAVES: tuple[_Maker, ...] = (
    SchemaMaker.text, SchemaMaker.pattern, SchemaMaker.own_pattern, SchemaMaker.format,
    SchemaMaker.integer, SchemaMaker.number, SchemaMaker.multiple, SchemaMaker.enum,
    SchemaMaker.typed_enum, SchemaMaker.const, SchemaMaker.boolean, SchemaMaker.null,
    SchemaMaker.types,
)  # fmt: skip
NESTS: tuple[_Maker, ...] = (
    SchemaMaker.object, SchemaMaker.closed, SchemaMaker.map, SchemaMaker.array, SchemaMaker.tuple,
    SchemaMaker.any_of, SchemaMaker.one_of, SchemaMaker.all_of, SchemaMaker.referred,
    SchemaMaker.recursive,
)  # fmt: skip
_AS_CENTRES = (*LEAVES, *NESTS, SchemaMaker.untyped, SchemaMaker.boolean_schema,
               SchemaMaker.named_by_pattern, SchemaMaker.least_properties,
               SchemaMaker.most_properties, SchemaMaker.any_of_objects, SchemaMaker.overlapping,
               SchemaMaker.unknown_format)  # fmt: skip
CENTRES: dict[str, _Maker] = {
    **{maker.__name__: maker for maker in _AS_CENTRES},
    **{keyword: _beyond(keyword) for keyword in BEYOND},
}
"""What stands at the centre of a schema, by name."""


def random_schema(seed: int, number: int) -> tuple[str, dict[str, Any]]:
    """The name of its centre, and the schema of this number."""
    dice = random.Random(f"{seed}/{number}")
    centre = tuple(CENTRES)[number % len(CENTRES)]
    return centre, SchemaMaker(dice).document(centre)
