"""How many tokens a request may take, before anybody has counted them. Pure.

An agent counts exactly, later: what is reserved for a prompt is then corrected.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from protocol.chat import Message, TextPart
from protocol.generation import GenerationRequest

MOST_BY_DEFAULT = 4096
"""Tokens that a request under a token limit may generate that does not say how many."""
_BYTES_OF_TOKEN = 3
"""Fewer than most tokenizers need of any language's text: an estimate that is rarely too low."""
MOST_OVERESTIMATED = 3
"""Times that an estimate is taken to be too high at most: nine bytes a token."""
_TOKENS_OF_TURN = 8
_TOKENS_OF_MEDIUM = 1024


def prompt_estimate(request: GenerationRequest) -> int:
    """Tokens of a request's prompt, template included."""
    if request.prompt is not None:
        return text_estimate(request.prompt) + text_estimate(request.suffix or "")
    tools = sum(len(msgspec.json.encode(tool)) for tool in request.tools)
    turns = sum(map(_of_turn, request.messages or ()))
    return turns + -(-tools // _BYTES_OF_TOKEN) + _TOKENS_OF_TURN


def text_estimate(text: str | tuple[int, ...]) -> int:
    """Tokens of a text; of tokens, how many they are."""
    if isinstance(text, tuple):
        return len(text)
    return -(-len(text.encode(errors="replace")) // _BYTES_OF_TOKEN)


def most_tokens(texts: Iterable[str | tuple[int, ...]]) -> int:
    """That texts can have: a token has a byte at least, and each text may get two more of its
    own."""
    return sum(
        2 + (len(text) if isinstance(text, tuple) else len(text.encode(errors="replace")))
        for text in texts
    )


def _of_turn(message: Message) -> int:
    tokens = _TOKENS_OF_TURN + text_estimate(message.reasoning_content or "")
    for call in message.tool_calls:
        tokens += text_estimate(call.function.name) + text_estimate(call.function.arguments)
    if isinstance(message.content, str):
        return tokens + text_estimate(message.content)
    for part in message.content or ():
        tokens += text_estimate(part.text) if isinstance(part, TextPart) else _TOKENS_OF_MEDIUM
    return tokens
