"""The canonical generation request and what comes back: deltas, usage, finish reasons.

Every API family translates to `GenerationRequest`; nothing in it belongs to one family.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from protocol.chat import MAX_TOOLS, Message, Tool, ToolChoice
from protocol.grammar import Grammar
from protocol.models import ModelName

Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Count = Annotated[int, Meta(ge=0, lt=2**31)]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "cancelled"]

MAX_MESSAGES = 10_000
MAX_STOPS = 16
MAX_STOP_CHARS = 1024
MAX_TOP_LOGPROBS = 20
MAX_PROMPT_LOGPROBS = 32_768
"""Tokens of a prompt times (`top_logprobs` + 1), where they are scored."""
MAX_PENALTY_WINDOW = 2**20
MAX_TEMPERATURE = 1000
"""Any token is as likely as any other long before; most families of APIs allow far less."""
MAX_DRY_WINDOW = 16_384
MAX_DRY_SEQUENCE_BREAKERS = 32
MAX_DRY_SEQUENCE_BREAKER_CHARS = 40
DRY_SEQUENCE_BREAKERS = ("\n", ":", '"', "*")
MAX_ADAPTERS = 16
MAX_ADAPTER_SCALE = 100
MAX_PRIORITY = 1000
MAX_SAMPLER_STATE = 8
"""Numbers that a sampler may carry from token to token; mirostat has one."""

AdapterScale = tuple[ModelName, Annotated[float, Meta(ge=-MAX_ADAPTER_SCALE, le=MAX_ADAPTER_SCALE)]]
SamplerState = Annotated[tuple[float, ...], Meta(max_length=MAX_SAMPLER_STATE)]


class GenerationRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One generation, whoever asked. Exactly one of `messages` and `prompt` is set.

    Neutral values switch a sampler off: temperature 0 is greedy, top_k 0, top_p 1, min_p 0,
    typical_p 1, repeat_penalty 1, the other penalties 0, dry_multiplier 0, xtc_probability 0 (or
    xtc_threshold over 0.5), mirostat 0.

    They apply in this order: logit_bias, penalties (presence, frequency, repeat), DRY, top_k,
    typical_p, top_p, min_p, XTC, temperature. Mirostat 1 or 2 takes the place of what stands
    between DRY and temperature. Penalties look at the last `penalty_last_n` generated tokens, DRY
    at the last `dry_penalty_last_n` of prompt and answer, back to the last sequence breaker.
    """

    model: str = ""
    messages: Annotated[tuple[Message, ...], Meta(max_length=MAX_MESSAGES)] | None = None
    prompt: str | tuple[TokenId, ...] | None = None
    suffix: str | None = None
    """Not None: write what stands between the prompt, a text, and this."""
    tools: Annotated[tuple[Tool, ...], Meta(max_length=MAX_TOOLS)] = ()
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    """False: one call at most."""
    enable_thinking: bool | None = None
    template_arguments: dict[str, Any] = {}
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    min_tokens: Annotated[int, Meta(ge=0)] = 0
    temperature: Annotated[float, Meta(ge=0, le=MAX_TEMPERATURE)] = 1.0
    top_k: Annotated[int, Meta(ge=0)] = 0
    top_p: Annotated[float, Meta(ge=0, le=1)] = 1.0
    min_p: Annotated[float, Meta(ge=0, le=1)] = 0.0
    typical_p: Annotated[float, Meta(ge=0, le=1)] = 1.0
    repeat_penalty: Annotated[float, Meta(gt=0, le=10)] = 1.0
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    penalty_last_n: Annotated[int, Meta(ge=0, le=MAX_PENALTY_WINDOW)] = 64
    dry_multiplier: Annotated[float, Meta(ge=0, le=100)] = 0.0
    dry_base: Annotated[float, Meta(ge=1, le=100)] = 1.75
    dry_allowed_length: Annotated[int, Meta(ge=0, le=MAX_DRY_WINDOW)] = 2
    dry_penalty_last_n: Annotated[int, Meta(ge=0, le=MAX_DRY_WINDOW)] = 64
    dry_sequence_breakers: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=MAX_DRY_SEQUENCE_BREAKER_CHARS)], ...],
        Meta(max_length=MAX_DRY_SEQUENCE_BREAKERS),
    ] = DRY_SEQUENCE_BREAKERS
    xtc_probability: Annotated[float, Meta(ge=0, le=1)] = 0.0
    xtc_threshold: Annotated[float, Meta(ge=0, le=1)] = 0.1
    mirostat: Annotated[int, Meta(ge=0, le=2)] = 0
    mirostat_tau: Annotated[float, Meta(ge=0, le=100)] = 5.0
    """The surprise aimed at, in bits."""
    mirostat_eta: Annotated[float, Meta(ge=0, le=1)] = 0.1
    logit_bias: tuple[tuple[TokenId, float], ...] = ()
    seed: Seed = 0
    stop: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=MAX_STOP_CHARS)], ...],
        Meta(max_length=MAX_STOPS),
    ] = ()
    ignore_eos: bool = False
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    """None: no logprobs. 0: of the chosen tokens only. n: also of the n likeliest."""
    prompt_logprobs: bool = False
    """With `top_logprobs`: those of the prompt's tokens come before that of the first generated
    one, the first of them as 0, as nothing stands before it; and an end token has its own, too.
    Nothing of the prompt is taken from the cache, or left there."""
    grammar: Grammar | None = None
    adapters: Annotated[tuple[AdapterScale, ...], Meta(max_length=MAX_ADAPTERS)] = ()
    """LoRA adapters that the model's agents have loaded, and how strongly each one acts."""
    priority: Annotated[int, Meta(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] = 0
    """When memory is short, the call of the lowest gives way first."""
    context_shift: bool = False
    """When the context is full, drop the older half of what came behind the prompt and go on."""


class Resume(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a generation goes on: the ids that other agents produced, and what was emitted.

    `sampler_state` is the last that came with one of the tokens (`Tokens.sampler_states`); a
    mirostat call with tokens needs it, no other has it.
    """

    token_ids: tuple[TokenId, ...]
    emitted_chars: Annotated[int, Meta(ge=0)]
    sampler_state: SamplerState = ()


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

    prompt_tokens: Count
    completion_tokens: Count
    cached_tokens: Count = 0
    reasoning_tokens: Count = 0


class Timings(Struct, frozen=True, kw_only=True):
    """Durations in milliseconds as the agent measured them, and what drafting did."""

    template_ms: float = 0.0
    queue_ms: float = 0.0
    prefill_ms: float = 0.0
    decode_ms: float = 0.0
    encode_ms: float = 0.0
    """Of the prefill, what images and sounds took to be encoded."""
    draft_steps: int = 0
    """Steps in which drafted tokens were checked; how many they were, and how many were right."""
    drafted_tokens: int = 0
    accepted_draft_tokens: int = 0
