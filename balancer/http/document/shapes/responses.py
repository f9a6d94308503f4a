"""What clients of OpenAI's Responses are answered."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType, field

from balancer.http.document.shapes.openai import Performance, ProxyInfo, TokenLogprobs

ItemStatus = Literal["in_progress", "completed", "incomplete"]


class ResponsePart(Struct, kw_only=True):
    """The one part of an item's content; a message's has `annotations` and `logprobs`."""

    type: Literal["output_text", "reasoning_text"]
    text: str
    annotations: list[Any] | UnsetType = UNSET
    logprobs: list[TokenLogprobs] | UnsetType = UNSET


class ResponseItem(Struct, kw_only=True):
    """One item of the output; which fields it has follows from `type`."""

    id: str
    type: Literal["message", "reasoning", "function_call"]
    status: ItemStatus
    role: Literal["assistant"] | UnsetType = UNSET
    content: list[ResponsePart] | UnsetType = UNSET
    summary: list[Any] | UnsetType = UNSET
    encrypted_content: UnsetType | None = UNSET
    call_id: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET


class InputTokensDetails(Struct, kw_only=True):
    """Of the prompt's tokens."""

    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(Struct, kw_only=True):
    """Of the answer's tokens."""

    reasoning_tokens: int


class ResponseUsage(Struct, kw_only=True):
    """Tokens, the end token included."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseFailure(Struct, kw_only=True):
    """Why a response failed."""

    code: str
    message: str


class IncompleteDetails(Struct, kw_only=True):
    """Why a response is incomplete."""

    reason: Literal["max_output_tokens", "content_filter"]


class ResponseObject(Struct, kw_only=True):
    """A response, with what its request asked for."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    error: ResponseFailure | None
    incomplete_details: IncompleteDetails | None
    model: str
    output: list[ResponseItem]
    usage: ResponseUsage | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    previous_response_id: str | None
    reasoning: dict[str, Any]
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: Any
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["disabled"]
    user: str | None
    background: Literal[False]
    performance: Performance | UnsetType = UNSET
    proxy_info: ProxyInfo | UnsetType = field(name="_proxy_info", default=UNSET)


class ResponseEvent(Struct, kw_only=True):
    """An event of a stream; which fields it has follows from `type`."""

    type: Literal[
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.output_item.done",
        "response.content_part.added",
        "response.content_part.done",
        "response.output_text.delta",
        "response.output_text.done",
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.completed",
        "response.incomplete",
        "response.failed",
        "error",
    ]
    sequence_number: int
    response: ResponseObject | UnsetType = UNSET
    item: ResponseItem | UnsetType = UNSET
    part: ResponsePart | UnsetType = UNSET
    item_id: str | UnsetType = UNSET
    output_index: int | UnsetType = UNSET
    content_index: int | UnsetType = UNSET
    delta: str | UnsetType = UNSET
    text: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET
    logprobs: list[TokenLogprobs] | UnsetType = UNSET
    code: str | UnsetType = UNSET
    message: str | UnsetType = UNSET
    param: str | UnsetType | None = UNSET


class DeletedResponse(Struct, kw_only=True):
    """A response that is forgotten."""

    id: str
    object: Literal["response"]
    deleted: Literal[True]


class InputTokens(Struct, kw_only=True):
    """How many tokens a response has before its answer."""

    object: Literal["response.input_tokens"]
    input_tokens: int


class InputItem(Struct, kw_only=True):
    """An item of a conversation; its other fields follow from its `type`."""

    id: str
    type: str | UnsetType = UNSET


class InputItemList(Struct, kw_only=True):
    """A page of a conversation's items."""

    object: Literal["list"]
    data: list[InputItem]
    first_id: str | None
    last_id: str | None
    has_more: bool
