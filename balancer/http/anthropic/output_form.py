"""What the answer's text must look like: `output_config`, and `output_format`, as its format was
called before. Pure: raises `InvalidRequest`."""

from __future__ import annotations

from typing import Any

import msgspec

from balancer.http.anthropic.schema import MessagesRequest
from balancer.http.faults import missing, refuse_value
from protocol.grammar import MAX_GRAMMAR_CHARS, Grammar

_OLD, _NEW = "output_format", "output_config.format"
_EFFORTS = (None, "low", "medium", "high", "xhigh", "max")
"""None of them has an effect: how much is the model's own affair."""


def grammar_of(body: MessagesRequest) -> Grammar | None:
    """The one that is asked for; asking for two that differ is an error."""
    given = _format(body)
    if given is None:
        return None
    at = grammar_param(body)
    if not isinstance(given, dict) or given.get("type") != "json_schema":
        raise refuse_value(at, given, "an object of type json_schema")
    schema = given.get("schema")
    if not isinstance(schema, dict):
        raise missing(f"{at}.schema")
    text = msgspec.json.encode(schema).decode()
    if len(text) > MAX_GRAMMAR_CHARS:
        raise refuse_value(f"{at}.schema", text, f"at most {MAX_GRAMMAR_CHARS} characters")
    return Grammar(kind="json_schema", text=text)


def grammar_param(body: MessagesRequest) -> str:
    """Where the client put the schema that `grammar_of` makes a grammar of."""
    return _OLD if _config(body).get("format") is None else _NEW


def _format(body: MessagesRequest) -> Any:
    config, older = _config(body), body.output_format
    effort = config.get("effort")
    if effort not in _EFFORTS:
        efforts = ", ".join(effort for effort in _EFFORTS if effort)
        raise refuse_value("output_config.effort", effort, f"one of {efforts}")
    newer = config.get("format")
    if None not in (newer, older) and newer != older:
        raise refuse_value(_OLD, older, f"absent beside `{_NEW}`, or the same")
    return older if newer is None else newer


def _config(body: MessagesRequest) -> dict[str, Any]:
    given = body.output_config
    if not isinstance(given, dict | None):
        raise refuse_value("output_config", given, "an object", code="invalid_type")
    return given or {}
