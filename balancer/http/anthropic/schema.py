"""What Anthropic's clients send, as they send it: types and ranges only, no meaning.

https://docs.anthropic.com/en/api/messages. Unknown fields are ignored, and so is `cache_control`
wherever it stands: prefixes are cached without being told to.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from protocol.generation import MAX_MESSAGES, MAX_STOP_CHARS, MAX_STOPS
from protocol.models import MODEL_NAME_PATTERN

StopText = Annotated[str, Meta(min_length=1, max_length=MAX_STOP_CHARS)]
Fraction = Annotated[float, Meta(ge=0, le=1)]


class SourceIn(Struct):
    """Where an image or a document is."""

    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    content: Any = None


class CitationsIn(Struct):
    """Whether the answer is to name places of a document."""

    enabled: bool | None = None


class BlockIn(Struct):
    """A piece of a message; which fields it has follows from `type`."""

    type: str
    text: str | None = None
    source: SourceIn | None = None
    id: str | None = None
    name: str | None = None
    input: Any = None
    tool_use_id: str | None = None
    content: Any = None
    is_error: bool | None = None
    thinking: str | None = None
    title: str | None = None
    context: str | None = None
    citations: CitationsIn | None = None


class MessageIn(Struct):
    """A turn."""

    role: str
    content: str | list[BlockIn]


class ToolIn(Struct):
    """A tool that is offered. Those that Anthropic runs itself have another `type`."""

    name: str | None = None
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


class ToolChoiceIn(Struct):
    """How tools are to be used."""

    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingIn(Struct):
    """Whether to think; how long is the model's own affair."""

    type: str
    budget_tokens: Annotated[int, Meta(ge=1)] | None = None
    display: str | None = None
    block_binding: Any = None
    """Without effect: thoughts that are sent back are taken as they are."""


class PromptFields(Struct, kw_only=True):
    """What a prompt is made of."""

    model: Annotated[str, Meta(pattern=MODEL_NAME_PATTERN)] | None = None
    messages: Annotated[list[MessageIn], Meta(min_length=1, max_length=MAX_MESSAGES)]
    system: str | list[BlockIn] | None = None
    tools: Annotated[list[ToolIn], Meta(max_length=1024)] | None = None
    tool_choice: ToolChoiceIn | None = None
    thinking: ThinkingIn | None = None
    output_config: Any = None

    # Known, and without effect.
    cache_control: Any = None

    # Known, and refused unless their value asks for nothing: see translate.
    billing_policy: Any = None
    compaction: Any = None
    context_management: Any = None
    mcp_servers: Any = None
    speed: Any = None


class MessagesRequest(PromptFields, kw_only=True):
    """The body of POST /v1/messages."""

    max_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    temperature: Fraction | None = None
    top_p: Fraction | None = None
    top_k: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    stop_sequences: Annotated[list[StopText], Meta(max_length=MAX_STOPS)] | None = None
    stream: bool | None = None
    metadata: dict[str, Any] | None = None
    output_format: Any = None

    # Known, and refused unless their value asks for nothing: see translate.
    container: Any = None
    diagnostics: Any = None
    fallback_credit_token: Any = None
    fallbacks: Any = None
    inference_geo: Any = None
    service_tier: Any = None
    thread: Any = None


class CountTokensRequest(PromptFields, kw_only=True):
    """The body of POST /v1/messages/count_tokens."""


EXPECTED = {
    "model": "1 to 200 characters of A-Z a-z 0-9 . _ : / @ -",
    "messages": f"a list of 1 to {MAX_MESSAGES} messages",
    "max_tokens": "an integer, at least 1",
    "temperature": "0..1",
    "top_p": "0..1",
    "top_k": "an integer, at least 0",
    "thinking.budget_tokens": "an integer, at least 1",
    "stop_sequences": f"1 to {MAX_STOPS} strings of 1 to {MAX_STOP_CHARS} characters",
}
"""What an error says was expected, by parameter."""
