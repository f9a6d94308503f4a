"""Log probabilities in the two shapes that OpenAI has for them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from protocol.generation import TokenLogprob

LOWEST = -9999.0
"""What OpenAI writes for a probability of zero; JSON knows no infinity."""


def piece_bytes(piece: str) -> bytes:
    """A token's bytes from the link's form, one character a byte."""
    return piece.encode("latin-1", "replace")


def piece_text(piece: str) -> str:
    """A token as text; a part of a character becomes U+FFFD, its bytes are beside it."""
    return piece_bytes(piece).decode("utf-8", "replace")


def chat_logprobs(tokens: Iterable[TokenLogprob]) -> list[dict[str, Any]]:
    """`logprobs.content` of a chat completion."""
    return [
        {
            **_entry(token.piece, token.logprob),
            "top_logprobs": [_entry(top.piece, top.logprob) for top in token.top],
        }
        for token in tokens
    ]


class CompletionLogprobs:
    """`logprobs` of a text completion; offsets count characters from the completion's start.

    Of candidates with equal text (parts of a character) the likeliest keeps the place.
    """

    def __init__(self, offset: int = 0) -> None:
        self._offset = offset

    def shape(self, tokens: Iterable[TokenLogprob]) -> dict[str, Any]:
        """The next tokens' part; offsets go on from call to call."""
        shaped: dict[str, list[Any]] = {
            "tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": [],
        }  # fmt: skip
        for token in tokens:
            text = piece_text(token.piece)
            shaped["tokens"].append(text)
            shaped["token_logprobs"].append(max(token.logprob, LOWEST))
            shaped["top_logprobs"].append(
                {piece_text(top.piece): max(top.logprob, LOWEST) for top in reversed(token.top)}
            )
            shaped["text_offset"].append(self._offset)
            self._offset += len(text)
        return shaped


def _entry(piece: str, logprob: float) -> dict[str, Any]:
    data = piece_bytes(piece)
    return {
        "token": data.decode("utf-8", "replace"),
        "logprob": max(logprob, LOWEST),
        "bytes": list(data),
    }
