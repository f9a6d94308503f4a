"""Which JSON types a tool's schema allows for an argument. Pure; nothing here trusts a schema."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

MAX_SCHEMAS = 16
"""That are looked through for one argument's types: a client's may go in circles."""

TYPE_OF: dict[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    dict: "object",
    list: "array",
    type(None): "null",
}
"""The JSON type of a decoded value."""
STRING = frozenset({"string"})


def types_of(parameters: Mapping[str, Any], name: str) -> frozenset[str]:
    """The types that an argument may have; empty: the schema does not say."""
    properties = parameters.get("properties")
    schema = properties.get(name) if isinstance(properties, dict) else None
    found: set[str] = set()
    ahead = [schema]
    for _ in range(MAX_SCHEMAS):
        if not ahead:
            break
        node = ahead.pop()
        if isinstance(node, dict):
            found.update(_named_types(node))
            for key in ("anyOf", "oneOf", "allOf"):
                ahead += node[key] if isinstance(node.get(key), list) else []
            if "$ref" in node:
                ahead.append(referred(parameters, node["$ref"]))
    return frozenset(found)


def referred(parameters: Mapping[str, Any], reference: object) -> Any:
    """What a `$ref` within the schema leads to; None: nowhere."""
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return None
    node: Any = parameters
    for step in reference[2:].split("/"):
        node = node.get(step) if isinstance(node, dict) else None
    return node


def _named_types(schema: Mapping[str, Any]) -> Iterable[str]:
    named = schema.get("type")
    if isinstance(named, str):
        return (named,)
    if isinstance(named, list):
        return (name for name in named if isinstance(name, str))
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    if not isinstance(values, list):
        return ()
    return (TYPE_OF[type(value)] for value in values if type(value) in TYPE_OF)
