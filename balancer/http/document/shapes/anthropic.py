"""What Anthropic's clients are answered."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, field

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"]


class TextBlock(Struct, kw_only=True, tag_field="type", tag="text"):
    """Text."""

    text: str


class ThinkingBlock(Struct, kw_only=True, tag_field="type", tag="thinking"):
    """Thoughts."""

    thinking: str
    signature: str


class ToolUseBlock(Struct, kw_only=True, tag_field="type", tag="tool_use"):
    """A call of a tool."""

    id: str
    name: str
    input: Any


Block = TextBlock | ThinkingBlock | ToolUseBlock


class MessageUsage(Struct, kw_only=True):
    """Tokens; `input_tokens` are those that were not cached."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int


class AnthropicMessage(Struct, kw_only=True):
    """A message; one that has only begun has no `stop_reason` yet."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[Block]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: MessageUsage


class CountedTokens(Struct, kw_only=True):
    """How many tokens a message would have."""

    input_tokens: int


class MessageStart(Struct, kw_only=True, tag_field="type", tag="message_start"):
    """The first event."""

    message: AnthropicMessage


class BlockStart(Struct, kw_only=True, tag_field="type", tag="content_block_start"):
    """A block begins."""

    index: int
    content_block: Block


class TextDelta(Struct, kw_only=True, tag_field="type", tag="text_delta"):
    """More text."""

    text: str


class ThinkingDelta(Struct, kw_only=True, tag_field="type", tag="thinking_delta"):
    """More thoughts."""

    thinking: str


class InputDelta(Struct, kw_only=True, tag_field="type", tag="input_json_delta"):
    """More of a call's arguments."""

    partial_json: str


class BlockDelta(Struct, kw_only=True, tag_field="type", tag="content_block_delta"):
    """A block goes on."""

    index: int
    delta: TextDelta | ThinkingDelta | InputDelta


class BlockStop(Struct, kw_only=True, tag_field="type", tag="content_block_stop"):
    """A block is whole."""

    index: int


class Ending(Struct, kw_only=True):
    """Why it ended."""

    stop_reason: StopReason
    stop_sequence: str | None


class MessageEnd(Struct, kw_only=True, tag_field="type", tag="message_delta"):
    """How the message ended."""

    delta: Ending
    usage: MessageUsage


class MessageStop(Struct, kw_only=True):
    """The last event."""

    kind: Literal["message_stop"] = field(name="type")


class Ping(Struct, kw_only=True):
    """The stream lives."""

    kind: Literal["ping"] = field(name="type")


EVENTS = (
    MessageStart, BlockStart, BlockDelta, BlockStop, MessageEnd, MessageStop, Ping,
)  # fmt: skip
