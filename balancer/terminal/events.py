"""Reads a streamed chat completion from any OpenAI-compatible server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from msgspec import Struct

_LONGEST_ERROR_CHARS = 500


class ServerSaidNo(Exception):
    """The server answered with an error; the text is its own, made fit for one line."""


class Piece(Struct, frozen=True, kw_only=True):
    """A piece of an answer: text of the answer itself, or of the reasoning before it."""

    content: str = ""
    reasoning: str = ""


async def stream_chat(
    session: aiohttp.ClientSession, url: str, body: dict[str, Any]
) -> AsyncIterator[Piece]:
    """The pieces of an answer as they come. `url` is the whole address of the route.

    Raises `ServerSaidNo`, aiohttp's `ClientError`, and `ValueError` for what is no such stream.
    """
    async with session.post(url, json={**body, "stream": True}) as answer:
        if answer.status != 200:
            raise ServerSaidNo(_reason(await answer.text()) or f"HTTP status {answer.status}")
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


def _pieces(event: dict[str, Any]) -> list[Piece]:
    deltas = [choice.get("delta") or {} for choice in event.get("choices") or []]
    return [
        Piece(
            content=delta.get("content") or "",
            reasoning=delta.get("reasoning_content") or delta.get("reasoning") or "",
        )
        for delta in deltas
    ]


def _reason(text: str) -> str:
    try:
        error = json.loads(text)["error"]
        text = error["message"] if isinstance(error, dict) else str(error)
    except (ValueError, KeyError, TypeError):
        pass
    return " ".join(text.split())[:_LONGEST_ERROR_CHARS]
