"""Canonical chat messages: what every API family is translated to and templates are fed from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

Role = Literal["system", "developer", "user", "assistant", "tool"]
Modality = Literal["vision", "audio"]

MAX_TOOLS = 1024
MAX_TOOL_NAME_CHARS = 128
MAX_MEDIA = 32
"""Images and sounds of one request."""
MAX_MEDIA_BYTES = 16 * 1024 * 1024
"""Their files, together."""

MediaBytes = Annotated[bytes, Meta(min_length=1, max_length=MAX_MEDIA_BYTES)]
"""A file; base64 in JSON."""


class TextPart(Struct, frozen=True, kw_only=True, tag_field="type", tag="text"):
    """A piece of text inside a message of several parts."""

    text: str


class ImagePart(Struct, frozen=True, kw_only=True, tag_field="type", tag="image"):
    """An image inside a message: a JPEG, PNG, WebP, GIF (its first picture) or BMP file."""

    data: MediaBytes


class AudioPart(Struct, frozen=True, kw_only=True, tag_field="type", tag="audio"):
    """A sound inside a message: a WAV file."""

    data: MediaBytes


MediaPart = ImagePart | AudioPart
Part = TextPart | ImagePart | AudioPart


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


class NamedTool(Struct, frozen=True, kw_only=True):
    """The one tool that must be called."""

    name: Annotated[str, Meta(min_length=1, max_length=MAX_TOOL_NAME_CHARS)]


ToolChoice = Literal["auto", "required"] | NamedTool
"""The model's own affair; some tool must be called; this one must be. Where none may be called,
none are offered."""


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One turn. `content` is text, parts, or None beside `tool_calls`."""

    role: Role
    content: str | tuple[Part, ...] | None = None
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    reasoning_content: str | None = None
