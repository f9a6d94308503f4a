"""The canonical generation request and what comes back: deltas, usage, finish reasons.

Every API family translates to `GenerationRequest`; nothing in it belongs to one family.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from protocol.chat import Message, Tool

Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "cancelled"]

MAX_MESSAGES = 10_000
MAX_STOPS = 16
MAX_STOP_CHARS = 1024
MAX_TOP_LOGPROBS = 20


class GenerationRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One generation, whoever asked. Exactly one of `messages` and `prompt` is set.

    Neutral values switch a sampler off: temperature 0 is greedy, top_k 0, top_p 1, min_p 0,
    typical_p 1, repeat_penalty 1, the other penalties 0.
    """

    model: str = ""
    messages: Annotated[tuple[Message, ...], Meta(max_length=MAX_MESSAGES)] | None = None
    prompt: str | tuple[TokenId, ...] | None = None
    tools: tuple[Tool, ...] = ()
    enable_thinking: bool | None = None
    template_arguments: dict[str, Any] = {}
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    min_tokens: Annotated[int, Meta(ge=0)] = 0
    temperature: Annotated[float, Meta(ge=0, le=2)] = 1.0
    top_k: Annotated[int, Meta(ge=0)] = 0
    top_p: Annotated[float, Meta(ge=0, le=1)] = 1.0
    min_p: Annotated[float, Meta(ge=0, le=1)] = 0.0
    typical_p: Annotated[float, Meta(ge=0, le=1)] = 1.0
    repeat_penalty: Annotated[float, Meta(gt=0, le=10)] = 1.0
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    penalty_last_n: Annotated[int, Meta(ge=0)] = 64
    logit_bias: tuple[tuple[TokenId, float], ...] = ()
    seed: Seed = 0
    stop: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=MAX_STOP_CHARS)], ...],
        Meta(max_length=MAX_STOPS),
    ] = ()
    ignore_eos: bool = False
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    """None: no logprobs. 0: of the chosen tokens only. n: also of the n likeliest."""


class Resume(Struct, frozen=True, kw_only=True):
    """Where a generation goes on: the ids that other agents produced, and what was emitted."""

    token_ids: tuple[TokenId, ...]
    emitted_chars: Annotated[int, Meta(ge=0)]


class ReasoningDelta(Struct, frozen=True, tag_field="type", tag="reasoning"):
    """Text inside the model's reasoning block."""

    text: str


class ContentDelta(Struct, frozen=True, tag_field="type", tag="content"):
    """Answer text, where it stands among other kinds of delta in one step."""

    text: str


class ToolCallDelta(Struct, frozen=True, tag_field="type", tag="tool_call", omit_defaults=True):
    """A piece of a tool call: the first of an index has id and name, later ones arguments."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


TypedDelta = ContentDelta | ReasoningDelta | ToolCallDelta
StepDelta = str | tuple[TypedDelta, ...]
"""One call's output of one step: plain content as a string, anything else as typed deltas."""


def emitted_chars(delta: StepDelta) -> int:
    """The characters of a delta as `Resume.emitted_chars` sums them: all text but the call ids."""
    if isinstance(delta, str):
        return len(delta)
    return sum(
        len(part.name) + len(part.arguments) if isinstance(part, ToolCallDelta) else len(part.text)
        for part in delta
    )


class TopLogprob(Struct, frozen=True, array_like=True):
    """A candidate token: id, its bytes as latin-1 text (a char a byte), natural-log probability."""

    token_id: int
    piece: str
    logprob: float


class TokenLogprob(Struct, frozen=True, array_like=True):
    """A chosen token with its probability and the likeliest candidates at its position."""

    token_id: int
    piece: str
    logprob: float
    top: tuple[TopLogprob, ...] = ()


class Usage(Struct, frozen=True, kw_only=True):
    """Tokens of one request, cumulative over resumed parts; the end token is counted."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class Timings(Struct, frozen=True, kw_only=True):
    """Durations in milliseconds as the agent measured them."""

    template_ms: float = 0.0
    queue_ms: float = 0.0
    prefill_ms: float = 0.0
    decode_ms: float = 0.0
