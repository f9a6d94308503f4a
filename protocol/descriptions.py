"""What an agent tells of its model when it is asked: too much for `register`, and seldom wanted."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

MAX_TEMPLATE_CHARS = 256 * 1024
FormatName = Annotated[str, Meta(max_length=64)]
TokenText = Annotated[str, Meta(max_length=200)]


class DescriptionRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is this model?"""

    model: str = ""


class ModelDescription(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result of `describe_model`. `chat_template` is the one in force, without what is beyond
    `MAX_TEMPLATE_CHARS`; `template_chars` counts all of it. A format is "" where there is none."""

    chat_template: Annotated[str, Meta(max_length=MAX_TEMPLATE_CHARS)] = ""
    template_chars: Annotated[int, Meta(ge=0)] = 0
    bos_token: TokenText = ""
    eos_token: TokenText = ""
    reasoning_format: FormatName = ""
    tool_format: FormatName = ""
