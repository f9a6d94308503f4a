"""What llama-server's clients send, as they send it: types and ranges only, no meaning.

Every field may be null. Unknown fields are ignored.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from balancer.http.openai import schema as openai
from protocol.generation import TokenId
from protocol.models import MODEL_NAME_PATTERN

MAX_IDS = 256 * 1024
"""What an agent writes out at a time."""

Model = Annotated[str, Meta(pattern=MODEL_NAME_PATTERN)] | None


class TokenizeBody(Struct, kw_only=True):
    """The body of POST /tokenize; `text` is another name for `content`."""

    model: Model = None
    content: str | None = None
    text: str | None = None
    add_special: bool | None = None
    parse_special: bool | None = None
    with_pieces: bool | None = None


class DetokenizeBody(Struct, kw_only=True):
    """The body of POST /detokenize."""

    model: Model = None
    tokens: Annotated[list[TokenId], Meta(max_length=MAX_IDS)]


class ApplyTemplateBody(openai.ChatCompletionRequest, kw_only=True):
    """The body of POST /apply-template: that of a chat completion, of which the prompt is made."""

    add_generation_prompt: bool | None = None


EXPECTED = {
    **openai.EXPECTED,
    "content": "a string",
    "text": "a string",
    "tokens": f"a list of at most {MAX_IDS} token ids",
    "add_special": "true or false",
    "parse_special": "true or false",
    "with_pieces": "true or false",
    "add_generation_prompt": "true or false",
}
"""What an error says was expected, by parameter."""
