"""What OpenAI clients send, as they send it: types and ranges only, no meaning.

Every field may be null, as OpenAI's clients send nulls for what they leave out. Unknown fields are
ignored. What the fields mean, and which values are refused, is `translate`'s business.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from protocol.embeddings import MAX_DIMENSIONS, MAX_INPUTS
from protocol.generation import (
    MAX_DRY_SEQUENCE_BREAKER_CHARS,
    MAX_DRY_SEQUENCE_BREAKERS,
    MAX_DRY_WINDOW,
    MAX_MESSAGES,
    MAX_PENALTY_WINDOW,
    MAX_PRIORITY,
    MAX_STOP_CHARS,
    MAX_STOPS,
    MAX_TOP_LOGPROBS,
)
from protocol.models import MODEL_NAME_PATTERN

MAX_CHOICES = 128
"""Answers of one request."""

StopText = Annotated[str, Meta(min_length=1, max_length=MAX_STOP_CHARS)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
DryLength = Annotated[int, Meta(ge=0, le=MAX_DRY_WINDOW)]
DryBreaker = Annotated[str, Meta(min_length=1, max_length=MAX_DRY_SEQUENCE_BREAKER_CHARS)]


class StreamOptions(Struct):
    """`stream_options`; obfuscation is padding that means nothing, so it is left out."""

    include_usage: bool | None = None
    include_obfuscation: Any = None


class SamplingFields(Struct, kw_only=True):
    """What both generation routes take."""

    model: Annotated[str, Meta(pattern=MODEL_NAME_PATTERN)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Fraction | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    min_p: Fraction | None = None
    typical_p: Fraction | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repeat_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    repeat_last_n: Annotated[int, Meta(ge=0, le=MAX_PENALTY_WINDOW)] | None = None
    dry_multiplier: Annotated[float, Meta(ge=0, le=100)] | None = None
    dry_base: Annotated[float, Meta(ge=1, le=100)] | None = None
    dry_allowed_length: DryLength | None = None
    dry_penalty_last_n: DryLength | None = None
    dry_sequence_breakers: (
        Annotated[list[DryBreaker], Meta(max_length=MAX_DRY_SEQUENCE_BREAKERS)] | None
    ) = None
    xtc_probability: Fraction | None = None
    xtc_threshold: Fraction | None = None
    mirostat: Annotated[int, Meta(ge=0, le=2)] | None = None
    mirostat_tau: Annotated[float, Meta(ge=0, le=100)] | None = None
    mirostat_eta: Fraction | None = None
    seed: int | None = None
    stop: StopText | Annotated[list[StopText], Meta(max_length=MAX_STOPS)] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    n_predict: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    min_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    ignore_eos: bool | None = None
    context_shift: bool | None = None
    priority: Annotated[int, Meta(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    timeout: Annotated[float, Meta(gt=0, le=86_400)] | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None

    response_format: dict[str, Any] | None = None
    grammar: str | None = None
    json_schema: dict[str, Any] | None = None

    # Known, and without effect.
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    safety_identifier: Any = None

    # Known, and refused unless their value asks for nothing: see `refused`.
    store: Any = None
    service_tier: Any = None
    samplers: Any = None
    cache_prompt: Any = None
    id_slot: Any = None
    n_probs: Any = None
    n_keep: Any = None
    min_keep: Any = None
    top_n_sigma: Any = None
    dynatemp_range: Any = None
    t_max_predict_ms: Any = None
    return_tokens: Any = None
    post_sampling_probs: Any = None
    timings_per_token: Any = None
    lora: Any = None


class FunctionCallIn(Struct):
    """The function of a tool call in the history."""

    name: str
    arguments: str = ""


class ToolCallIn(Struct):
    """A tool call in the history."""

    function: FunctionCallIn | None = None
    id: str | None = None
    type: str | None = None


class ImageUrlIn(Struct):
    """Where an image is: in the URL itself (`data:`), or at a host that may be asked."""

    url: str
    detail: str | None = None


class InputAudioIn(Struct):
    """A sound in base64."""

    data: str
    format: str


class PartIn(Struct):
    """A piece of a message: text, an image or a sound."""

    type: str
    text: str | None = None
    image_url: ImageUrlIn | str | None = None
    input_audio: InputAudioIn | None = None


class MessageIn(Struct):
    """A message of any role."""

    role: str
    content: str | list[PartIn] | None = None
    name: str | None = None
    tool_calls: list[ToolCallIn] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    audio: Any = None
    function_call: Any = None


class FunctionIn(Struct):
    """A function that the model may call."""

    name: Annotated[str, Meta(min_length=1, max_length=256)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolIn(Struct):
    """A tool that is offered."""

    type: str
    function: FunctionIn | None = None


class ChatCompletionRequest(SamplingFields, kw_only=True):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[list[MessageIn], Meta(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    tools: Annotated[list[ToolIn], Meta(max_length=1024)] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    audio: Any = None
    modalities: Any = None
    prediction: Any = None
    web_search_options: Any = None
    verbosity: Any = None
    functions: Any = None
    function_call: Any = None
    moderation: Any = None
    prompt_cache_options: Any = None


class CompletionRequest(SamplingFields, kw_only=True):
    """The body of POST /v1/completions."""

    prompt: str | list[Any] | None = None
    suffix: str | None = None
    echo: bool | None = None
    max_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    """0 beside `echo` and `logprobs` alone: nothing but the prompt is wanted."""
    best_of: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None


class EmbeddingsRequest(Struct, kw_only=True):
    """The body of POST /v1/embeddings."""

    input: str | list[Any] | None = None
    model: Annotated[str, Meta(pattern=MODEL_NAME_PATTERN)] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1, le=MAX_DIMENSIONS)] | None = None
    timeout: Annotated[float, Meta(gt=0, le=86_400)] | None = None
    user: str | None = None


EXPECTED = {
    "model": "1 to 200 characters of A-Z a-z 0-9 . _ : / @ -",
    "messages": f"a list of 1 to {MAX_MESSAGES} messages",
    "temperature": "0..2",
    "top_p": "0..1",
    "top_k": "an integer, 0 or -1 for off",
    "min_p": "0..1",
    "typical_p": "0..1",
    "presence_penalty": "-2..2",
    "frequency_penalty": "-2..2",
    "repeat_penalty": "above 0, at most 10",
    "repeat_last_n": f"0..{MAX_PENALTY_WINDOW}",
    "dry_multiplier": "0..100",
    "dry_base": "1..100",
    "dry_allowed_length": f"0..{MAX_DRY_WINDOW}",
    "dry_penalty_last_n": f"0..{MAX_DRY_WINDOW}",
    "dry_sequence_breakers": (
        f"at most {MAX_DRY_SEQUENCE_BREAKERS} strings of 1 to {MAX_DRY_SEQUENCE_BREAKER_CHARS} "
        "characters"
    ),
    "xtc_probability": "0..1",
    "xtc_threshold": "0..1",
    "mirostat": "0, 1 or 2",
    "mirostat_tau": "0..100",
    "mirostat_eta": "0..1",
    "seed": "an integer",
    "stop": f"a string or 1 to {MAX_STOPS} strings of 1 to {MAX_STOP_CHARS} characters",
    "max_tokens": "an integer, at least 1",
    "max_completion_tokens": "an integer, at least 1",
    "min_tokens": "an integer, at least 0",
    "logit_bias": "an object of token ids with numbers, -100..100",
    "n_predict": "an integer, at least 1, or -1 for no cap",
    "n": f"1..{MAX_CHOICES}",
    "best_of": f"1..{MAX_CHOICES}",
    "priority": f"-{MAX_PRIORITY}..{MAX_PRIORITY}",
    "top_logprobs": f"0..{MAX_TOP_LOGPROBS}",
    "timeout": "seconds, above 0, at most 86400",
    "prompt": "a string, a list of token ids, or a list of either",
    "input": f"a string, a list of token ids, or a list of 1 to {MAX_INPUTS} of either",
    "encoding_format": '"float" or "base64"',
    "dimensions": f"1..{MAX_DIMENSIONS}, at most what the model's vectors have",
    "response_format": "an object with a `type`",
    "json_schema": "a JSON schema: an object",
    "grammar": "a string, in GBNF",
}
"""What an error says was expected, by parameter."""
