"""Reads a streamed chat completion from any OpenAI-compatible server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from msgspec import Struct

_LONGEST_ERROR_CHARS = 500


class ServerSaidNo(Exception):
    """The server answered with an error; the text is its own, made fit for one line, and so is
    its `code` if it gave one."""

    def __init__(self, reason: str, *, code: str = "") -> None:
        super().__init__(reason)
        self.code = code


class Piece(Struct, frozen=True, kw_only=True):
    """A piece of an answer: text of the answer itself, or of the reasoning before it.

    `is_cut` comes with the last one of an answer that a limit ended.
    """

    content: str = ""
    reasoning: str = ""
    is_cut: bool = False


async def stream_chat(
    session: aiohttp.ClientSession, url: str, body: dict[str, Any]
) -> AsyncIterator[Piece]:
    """The pieces of an answer as they come. `url` is the whole address of the route.

    Raises `ServerSaidNo`, aiohttp's `ClientError`, and `ValueError` for what is no such stream.
    """
    async with session.post(url, json={**body, "stream": True}) as answer:
        if answer.status != 200:
            said = await answer.text()
            raise ServerSaidNo(_reason(said) or f"HTTP status {answer.status}", code=_code(said))
        is_done = False
        async for line in answer.content:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                is_done = True
                continue
            event = json.loads(data)
            if not isinstance(event, dict):
                raise ValueError(f"an event is no object: {data[:80]!r}")
            if event.get("error"):  # some servers send null with every chunk
                raise ServerSaidNo(_reason(data.decode("utf-8", "replace")))
            for piece in _pieces(event):
                yield piece
        if not is_done:
            raise ServerSaidNo("the answer broke off")


def joined(pieces: list[Piece]) -> Piece:
    """All pieces of an answer as one."""
    return Piece(
        content="".join(piece.content for piece in pieces),
        reasoning="".join(piece.reasoning for piece in pieces),
        is_cut=any(piece.is_cut for piece in pieces),
    )


def _pieces(event: dict[str, Any]) -> list[Piece]:
    choices = event.get("choices") or []
    deltas = [choice.get("delta") or {} for choice in choices]
    return [
        Piece(
            content=delta.get("content") or "",
            reasoning=delta.get("reasoning_content") or delta.get("reasoning") or "",
            is_cut=choice.get("finish_reason") == "length",
        )
        for choice, delta in zip(choices, deltas, strict=True)
    ]


def _code(text: str) -> str:
    try:
        return str(json.loads(text)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return ""


def _reason(text: str) -> str:
    try:
        error = json.loads(text)["error"]
        text = error["message"] if isinstance(error, dict) else str(error)
    except (ValueError, KeyError, TypeError):
        pass
    return " ".join(text.split())[:_LONGEST_ERROR_CHARS]
