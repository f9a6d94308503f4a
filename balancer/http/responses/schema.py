"""What clients of OpenAI's Responses send, as they send it: types and ranges only, no meaning.

https://platform.openai.com/docs/api-reference/responses. Every field may be null; unknown ones are
ignored. What the fields mean, and which values are refused, is `translate`'s and `items`' business.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from protocol.generation import MAX_MESSAGES, MAX_TOP_LOGPROBS
from protocol.models import MODEL_NAME_PATTERN

MAX_METADATA = 16
MAX_ID_CHARS = 256

Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_CHARS)]
Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]],
    Meta(max_length=MAX_METADATA),
]


class PartIn(Struct, omit_defaults=True):
    """A piece of an item's content: text of any kind, a refusal, or an image."""

    type: str
    text: str | None = None
    image_url: str | None = None
    detail: str | None = None
    file_id: str | None = None
    refusal: str | None = None


class ItemIn(Struct, omit_defaults=True):
    """A piece of the conversation; which fields it has follows from `type`."""

    type: str | None = None
    id: Id | None = None
    role: str | None = None
    content: str | list[PartIn] | None = None
    summary: list[PartIn] | None = None
    call_id: Id | None = None
    name: str | None = None
    arguments: str | None = None
    output: Any = None


class ToolIn(Struct):
    """A tool that is offered; those that OpenAI runs itself have another `type`."""

    type: str
    name: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FormatIn(Struct, omit_defaults=True):
    """Which texts are answers."""

    type: str
    name: str | None = None
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class TextIn(Struct):
    """What the answer's text is to look like."""

    format: FormatIn | None = None
    verbosity: str | None = None


class ReasoningIn(Struct):
    """How to think."""

    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None
    context: str | None = None
    mode: str | None = None


class PromptFields(Struct, kw_only=True):
    """What a prompt is made of, and what must be known to make it."""

    model: Annotated[str, Meta(pattern=MODEL_NAME_PATTERN)] | None = None
    input: str | Annotated[list[ItemIn], Meta(min_length=1, max_length=MAX_MESSAGES)] | None = None
    instructions: str | None = None
    previous_response_id: Id | None = None
    text: TextIn | None = None
    reasoning: ReasoningIn | None = None
    tools: Annotated[list[ToolIn], Meta(max_length=1024)] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None

    # Known, and refused unless their value asks for nothing: see translate.
    conversation: Any = None
    truncation: Any = None


class ResponseRequest(PromptFields, kw_only=True):
    """The body of POST /v1/responses."""

    store: bool | None = None
    include: Annotated[list[str], Meta(max_length=32)] | None = None

    max_output_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None

    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    """Obfuscation is padding that means nothing, so it is left out."""
    metadata: Metadata | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    # Known, and refused unless their value asks for nothing: see translate.
    access_programs: Any = None
    background: Any = None
    background_options: Any = None
    context_management: Any = None
    image: Any = None
    max_tool_calls: Any = None
    moderation: Any = None
    prompt: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None
    service_tier: Any = None


class InputTokensRequest(PromptFields, kw_only=True):
    """The body of POST /v1/responses/input_tokens."""

    # Known, and refused.
    personality: Any = None


EXPECTED = {
    "model": "1 to 200 characters of A-Z a-z 0-9 . _ : / @ -",
    "input": f"a string or a list of 1 to {MAX_MESSAGES} items",
    "max_output_tokens": "an integer, at least 1",
    "temperature": "0..2",
    "top_p": "0..1",
    "top_logprobs": f"0..{MAX_TOP_LOGPROBS}",
    "metadata": (
        f"an object of at most {MAX_METADATA} strings of at most 512 characters, by names of at "
        "most 64"
    ),
    "previous_response_id": "the id of a response",
}
"""What an error says was expected, by parameter."""
