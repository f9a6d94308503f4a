"""The canonical request for a chat's prompt, and what comes back.

A prompt is what the model's own chat template makes of messages, as a generation would begin with.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from protocol.chat import Message, Tool
from protocol.generation import MAX_MESSAGES, Count


class RenderRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which prompt do these messages make, and of how many tokens is it? What is not asked for is
    left out. `created` (unix seconds) is the date that templates see."""

    model: str = ""
    messages: Annotated[tuple[Message, ...], Meta(min_length=1, max_length=MAX_MESSAGES)]
    tools: tuple[Tool, ...] = ()
    enable_thinking: bool | None = None
    template_arguments: dict[str, Any] = {}
    created: int = 0
    with_prompt: bool = True
    with_count: bool = False


class Rendered(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result of `render`. `prompt_tokens` counts as `Usage.prompt_tokens` of a generation
    does: with the token that the model wants at the start."""

    prompt: str = ""
    prompt_tokens: Count | None = None
