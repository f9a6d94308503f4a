"""What the answer's text must look like: `response_format`, and llama-server's own parameters.

Pure. Whether a grammar can be made of it is the agent's to say; that becomes a 400, too.
"""

from __future__ import annotations

from typing import Any

import msgspec

from balancer.http.faults import missing, refuse_value
from protocol.grammar import MAX_GRAMMAR_CHARS, Grammar

_TYPES = "text, json_object or json_schema"


def grammar_of(
    response_format: dict[str, Any] | None, gbnf: str | None, schema: dict[str, Any] | None
) -> Grammar | None:
    """The one that is asked for; asking for two is an error."""
    made = [
        (name, grammar)
        for name, grammar in (
            ("response_format", _of_format(response_format)),
            ("grammar", _gbnf(gbnf)),
            ("json_schema", _of_schema(schema)),
        )
        if grammar is not None
    ]
    if len(made) > 1:
        raise refuse_value(made[1][0], "given", f"absent beside `{made[0][0]}`")
    return made[0][1] if made else None


def grammar_param(
    response_format: dict[str, Any] | None, gbnf: str | None, schema: dict[str, Any] | None
) -> str:
    """Where the client put the grammar that `grammar_of` makes of the same."""
    if schema is not None:
        return "json_schema"
    return "response_format" if response_format is not None and not gbnf else "grammar"


def _of_format(given: dict[str, Any] | None) -> Grammar | None:
    if given is None:
        return None
    match given.get("type"):
        case None:
            raise missing("response_format.type")
        case "text":
            return None
        case "json_object":
            # llama-server takes a schema here, too
            schema = given.get("schema")
            if schema is None:
                return Grammar(kind="json_object")
            return json_schema_grammar(schema, "response_format.schema")
        case "json_schema":
            wrapper = given.get("json_schema")
            if not isinstance(wrapper, dict):
                raise missing("response_format.json_schema")
            if wrapper.get("schema") is None:
                raise missing("response_format.json_schema.schema")
            return json_schema_grammar(wrapper["schema"], "response_format.json_schema.schema")
        case other:
            raise refuse_value("response_format.type", other, _TYPES)


def _of_schema(schema: dict[str, Any] | None) -> Grammar | None:
    return None if schema is None else json_schema_grammar(schema, "json_schema")


def json_schema_grammar(schema: Any, param: str) -> Grammar:
    """The one of a schema; `param` is where the client put it, for errors."""
    if not isinstance(schema, dict | bool):
        raise refuse_value(param, schema, "a JSON schema: an object", code="invalid_type")
    text = msgspec.json.encode(schema).decode()
    return Grammar(kind="json_schema", text=_short(text, param))


def _gbnf(text: str | None) -> Grammar | None:
    return Grammar(kind="gbnf", text=_short(text, "grammar")) if text else None


def _short(text: str, param: str) -> str:
    if len(text) > MAX_GRAMMAR_CHARS:
        raise refuse_value(param, text, f"at most {MAX_GRAMMAR_CHARS} characters")
    return text
