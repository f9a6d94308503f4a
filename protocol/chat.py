"""Canonical chat messages: what every API family is translated to and templates are fed from."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

Role = Literal["system", "developer", "user", "assistant", "tool"]


class TextPart(Struct, frozen=True, kw_only=True, tag_field="type", tag="text"):
    """A piece of text inside a message of several parts."""

    text: str


class FunctionCall(Struct, frozen=True, kw_only=True):
    """A function's name and its arguments as JSON text, as the model wrote it."""

    name: str
    arguments: str


class ToolCall(Struct, frozen=True, kw_only=True):
    """One call of a tool in an assistant message."""

    id: str = ""
    type: Literal["function"] = "function"
    function: FunctionCall


class FunctionDefinition(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the client says of a function; `parameters` is JSON Schema, untouched."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    strict: bool | None = None


class Tool(Struct, frozen=True, kw_only=True):
    """A tool that the model may call."""

    type: Literal["function"] = "function"
    function: FunctionDefinition


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One turn. `content` is text, parts, or None beside `tool_calls`."""

    role: Role
    content: str | tuple[TextPart, ...] | None = None
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    reasoning_content: str | None = None
