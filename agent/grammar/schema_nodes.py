"""Every schema in a JSON schema, wherever it stands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Node = dict[str, Any]
"""A schema that is an object; those that are `true` or `false` say nothing more."""

_DATA = frozenset({"const", "enum", "default", "examples"})
_BY_NAME = frozenset({
    "properties", "patternProperties", "$defs", "definitions", "dependentSchemas",
    "dependentRequired", "dependencies",
})  # fmt: skip


def schemas_in(document: Node) -> Iterator[Node]:
    """The document and all schemas in it, each once; it may be changed at the schema just given.

    What stands under a keyword that JSON Schema does not know counts as a schema, too: a `$ref`
    may lead there.
    """
    ahead: list[Any] = [document]
    while ahead:
        node = ahead.pop()
        if isinstance(node, list):
            ahead.extend(node)
        elif isinstance(node, dict):
            yield node
            for keyword, value in node.items():
                if keyword in _BY_NAME and isinstance(value, dict):
                    ahead.extend(value.values())
                elif keyword not in _DATA:
                    ahead.append(value)
