"""What a schema has in it, by names that a table of results can show."""

from __future__ import annotations

from typing import Any

from agent.grammar.schema_nodes import Node, schemas_in

_ANNOTATIONS = frozenset({"title", "description", "$defs", "type", "format"})
_WITH_SCHEMAS = frozenset({"items", "additionalProperties"})


def constructs_of(schema: dict[str, Any]) -> frozenset[str]:
    """Keywords, types, formats, and some forms that keywords take."""
    found: set[str] = set()
    nodes = list(schemas_in(schema))
    for node in nodes:
        found |= node.keys() - _ANNOTATIONS
        found |= _types(node)
        found |= {f"{keyword}: {_form(node[keyword])}" for keyword in _WITH_SCHEMAS & node.keys()}
        if isinstance(node.get("format"), str):
            found |= {"format", f"format: {node['format']}"}
        if any(not name.isascii() for name in node.get("properties", ())):
            found.add("names beyond ASCII")
    if _recurs(schema.get("$defs", {})):
        found.add("recursion")
    return frozenset(found)


def _types(node: Node) -> set[str]:
    match node.get("type"):
        case str() as one:
            return {f"type: {one}"}
        case list():
            return {"type: a list"}
        case _:
            return set()


def _form(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "a schema"


def _recurs(definitions: dict[str, Any]) -> bool:
    """Whether one of them refers to itself."""
    return any(
        node.get("$ref") == f"#/$defs/{name}"
        for name, definition in definitions.items()
        if isinstance(definition, dict)
        for node in schemas_in(definition)
    )
