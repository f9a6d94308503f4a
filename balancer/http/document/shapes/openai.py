"""What OpenAI's clients are answered."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType, field

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class PromptTokensDetails(Struct, kw_only=True):
    """Of the prompt's tokens."""

    cached_tokens: int


class CompletionTokensDetails(Struct, kw_only=True):
    """Of the answer's tokens."""

    reasoning_tokens: int


class Usage(Struct, kw_only=True):
    """Tokens, the end token included."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class Performance(Struct, kw_only=True):
    """How fast it was."""

    queue_time_ms: float
    time_to_first_token_ms: float
    inference_time_ms: float
    tokens_per_second: float
    cached_prompt_tokens: int
    gpu_utilization: float | None
    draft_steps: int
    drafted_tokens: int
    accepted_draft_tokens: int


class ProxyInfo(Struct, kw_only=True):
    """Who worked on it; `response_time` is in seconds."""

    provider: str
    attempt_number: int
    response_time: float
    request_id: str


class CalledFunction(Struct, kw_only=True):
    """A function and its arguments: JSON, unless they were cut short."""

    name: str
    arguments: str


class ToolCall(Struct, kw_only=True):
    """A call of a tool."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class ToolCallPiece(Struct, kw_only=True):
    """A piece of a call of a tool; the first one has its id and name."""

    index: int
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET
    function: dict[str, str]


class LikelyToken(Struct, kw_only=True):
    """A token and how likely it was."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprobs(LikelyToken, kw_only=True):
    """A token of the answer, with those that were likely in its place."""

    top_logprobs: list[LikelyToken]


class ChatLogprobs(Struct, kw_only=True):
    """Of all tokens, in order."""

    content: list[TokenLogprobs]
    refusal: None


class AssistantMessage(Struct, kw_only=True):
    """The answer."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCall] | UnsetType = UNSET


class ChatChoice(Struct, kw_only=True):
    """One of `n` answers."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(Struct, kw_only=True):
    """A chat completion."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    performance: Performance
    proxy_info: ProxyInfo = field(name="_proxy_info")


class Delta(Struct, kw_only=True):
    """What is new."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCallPiece] | UnsetType = UNSET


class ChunkChoice(Struct, kw_only=True):
    """What is new in one of `n` answers."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None


class ChatCompletionChunk(Struct, kw_only=True):
    """An event of a streamed chat completion; the last one before `[DONE]` has `performance`."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | UnsetType | None = UNSET
    performance: Performance | UnsetType = UNSET
    proxy_info: ProxyInfo | UnsetType = field(name="_proxy_info", default=UNSET)


class TextLogprobs(Struct, kw_only=True):
    """Of all tokens, in order; offsets count characters."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class CompletionChoice(Struct, kw_only=True):
    """One of `n` texts."""

    text: str
    index: int
    logprobs: TextLogprobs | None
    finish_reason: FinishReason


class Completion(Struct, kw_only=True):
    """A text completion."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
    performance: Performance
    proxy_info: ProxyInfo = field(name="_proxy_info")


class CompletionChunkChoice(Struct, kw_only=True):
    """What is new in one of `n` texts."""

    text: str
    index: int
    logprobs: TextLogprobs | None
    finish_reason: FinishReason | None


class CompletionChunk(Struct, kw_only=True):
    """An event of a streamed text completion; the last one before `[DONE]` has `performance`."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChunkChoice]
    usage: Usage | UnsetType | None = UNSET
    performance: Performance | UnsetType = UNSET
    proxy_info: ProxyInfo | UnsetType = field(name="_proxy_info", default=UNSET)


class Embedding(Struct, kw_only=True):
    """One vector; as base64 the bytes are little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Struct, kw_only=True):
    """Tokens of all inputs."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Struct, kw_only=True):
    """A vector for each input, in their order."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class Capabilities(Struct, kw_only=True):
    """What can be asked of a model."""

    chat: bool
    completions: bool
    embeddings: bool
    vision: bool
    audio: bool


class ModelRow(Struct, kw_only=True):
    """A model by one of its names."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    type: Literal["model"]
    display_name: str
    created_at: str
    lifecycle: Literal["active"]
    max_input_tokens: int
    provider_type: str
    status: Literal["healthy", "degraded", "unhealthy"]
    enabled: bool
    forced: bool
    context_window: int
    version: str
    description: str
    capabilities: Capabilities


class ModelList(Struct, kw_only=True):
    """The models that are served now."""

    object: Literal["list"]
    data: list[ModelRow]
    first_id: str | None
    last_id: str | None
    has_more: Literal[False]
