"""A text as a model writes it, and what a client must be given of it, written by hand."""

from __future__ import annotations

from typing import Any, NamedTuple


class Call(NamedTuple):
    """A tool call."""

    name: str
    arguments: str


class Thought(NamedTuple):
    """Reasoning."""

    text: str


class Stream(NamedTuple):
    """`gives` in order: content as plain text, calls, reasoning."""

    about: str
    text: str
    gives: tuple[str | Call | Thought, ...]


def as_text(about: str, text: str) -> Stream:
    """A text that is content as it stands."""
    return Stream(about, text, (text,) if text else ())


PARAMETERS: dict[str, dict[str, Any]] = {
    "get_weather": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "unit": {"enum": ["C", "F"]},
        },
    },
    "add": {
        "type": "object",
        "properties": {
            "a": {"type": "number"},
            "b": {"$ref": "#/$defs/many"},
            "exact": {"type": "boolean"},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
        "$defs": {"many": {"type": "array", "items": {"type": "number"}}},
    },
    "write_file": {
        "type": "object",
        "properties": {"path": {"type": "string"}, "content": {"type": "string"}},
    },
    "ping": {"type": "object", "properties": {}},
}
TOOLS = frozenset(PARAMETERS)
"""What is on offer."""
