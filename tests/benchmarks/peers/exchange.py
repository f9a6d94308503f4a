"""One HTTP exchange on a connection of its own, every arriving piece with its time.

While it runs, bytes are only kept: the load generator shares a core with what it measures. They are
read, as JSON or as server-sent events, when somebody asks the `Answer` what it holds. Connections
are closed after each exchange: a client's keep-alive races with llama-server's close.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

MAX_ANSWER_BYTES = 64 * 1024 * 1024


class Refused(Exception):
    """The server answered with an error; the message is what it said."""


class Unusable(Exception):
    """The server answered, but not with what was asked for, so the round measures nothing."""


class Answer:
    """What came back for one request. Times are `time.perf_counter` seconds."""

    def __init__(
        self, sent_at: float, pieces: list[tuple[float, bytes]], asked_tokens: int
    ) -> None:
        self.sent_at = sent_at
        self.asked_tokens = asked_tokens
        self._pieces = pieces

    @cached_property
    def documents(self) -> list[tuple[float, dict[str, Any]]]:
        """The JSON documents of the body with the time each was complete. Raises `Refused`."""
        head, timed_body = _split_head(self._pieces)
        status = int(head[0].split(b" ", 2)[1])
        if any(line.lower().replace(b" ", b"") == b"transfer-encoding:chunked" for line in head):
            timed_body = list(_dechunked(timed_body))
        is_stream = any(
            line.lower().startswith(b"content-type: text/event-stream") for line in head
        )
        if status != 200:
            body = b"".join(data for _, data in timed_body).decode("utf-8", "replace")
            raise Refused(f"HTTP {status}: {body[:500]}")
        documents = list(_events(timed_body) if is_stream else _whole(timed_body))
        for _, document in documents:
            if "error" in document:
                raise Refused(f"error in the stream: {json.dumps(document['error'])[:500]}")
        return documents

    @cached_property
    def texts(self) -> list[tuple[float, str]]:
        """The pieces of generated text, the empty ones left out."""
        found = []
        for at, document in self.documents:
            for choice in document.get("choices", ()):
                delta = choice.get("delta") or choice.get("message") or choice
                text = delta.get("content") or delta.get("text")
                if text:
                    found.append((at, str(text)))
        if not found:
            raise Unusable("the answer has no text")
        return found

    @property
    def text(self) -> str:
        """All of the generated text."""
        return "".join(text for _, text in self.texts)

    @property
    def first_text_s(self) -> float:
        """Time to first token, connecting and waiting for a slot included."""
        return self.texts[0][0] - self.sent_at

    @property
    def ended_at(self) -> float:
        """When the last text came."""
        return self.texts[-1][0]

    def gaps(self, since: float = 0.0, until: float = float("inf")) -> list[float]:
        """Seconds between neighbouring pieces of text, those that touch the time in question."""
        times = [at for at, _ in self.texts]
        return [
            later - earlier
            for earlier, later in itertools.pairwise(times)
            if later > since and earlier < until
        ]

    def last(self, key: str) -> dict[str, Any]:
        """The last object of that name (`usage`, `timings`, `performance`), {} without one."""
        for _, document in reversed(self.documents):
            if isinstance(document.get(key), dict):
                return dict(document[key])
        return {}

    @property
    def tokens(self) -> int:
        """Generated tokens by the server's count; `Unusable` if they are not what was asked.

        A server that reports no usage is taken at one piece of text a token.
        """
        count = int(self.last("usage").get("completion_tokens", len(self.texts)))
        if self.asked_tokens and count != self.asked_tokens:
            raise Unusable(f"asked for exactly {self.asked_tokens} tokens and got {count}")
        return count


class _Exchange(asyncio.Protocol):
    """Keeps what arrives; `over` resolves when the server closes."""

    def __init__(self, on_data: Callable[[bytes], None] | None) -> None:
        self._on_data = on_data
        self.pieces: list[tuple[float, bytes]] = []
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._size = 0

    def data_received(self, data: bytes) -> None:
        self.pieces.append((time.perf_counter(), data))
        self._size += len(data)
        if self._on_data:
            self._on_data(data)
        if self._size > MAX_ANSWER_BYTES and not self.over.done():
            self.over.set_exception(Unusable(f"an answer of over {MAX_ANSWER_BYTES} bytes"))

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self.over.done():
            return
        if exc is not None:
            self.over.set_exception(Unusable(f"the connection broke: {exc!r}"))
        else:
            self.over.set_result(None)


async def post(
    host: str,
    port: int,
    path: str,
    body: dict[str, Any],
    *,
    asked_tokens: int = 0,
    on_data: Callable[[bytes], None] | None = None,
) -> Answer:
    """POST a JSON body and take the answer to its end. Cancelling closes the connection.

    `asked_tokens`: how many the answer must have by its usage, 0 for any number. `on_data` sees the
    bytes as they come. Raises `OSError` when the server cannot be reached; the errors that it
    answers show when the answer is read.
    """
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    sent_at = time.perf_counter()
    transport, exchange = await loop.create_connection(lambda: _Exchange(on_data), host, port)
    try:
        transport.write(head.encode() + data)
        await exchange.over
    finally:
        transport.abort()
    return Answer(sent_at, exchange.pieces, asked_tokens)


def _split_head(
    pieces: list[tuple[float, bytes]],
) -> tuple[list[bytes], list[tuple[float, bytes]]]:
    head = b""
    for index, (at, data) in enumerate(pieces):
        head += data
        before, end, rest = head.partition(b"\r\n\r\n")
        if end:
            return before.split(b"\r\n"), [(at, rest), *pieces[index + 1 :]]
    raise Unusable(f"no HTTP answer but {head[:100]!r}")


def _dechunked(pieces: list[tuple[float, bytes]]) -> Iterator[tuple[float, bytes]]:
    """The chunks' contents (RFC 9112, 7.1), each with the time its last byte came."""
    waiting = b""
    for at, data in pieces:
        waiting += data
        while (line_end := waiting.find(b"\r\n")) >= 0:
            size = int(waiting[:line_end].split(b";")[0], 16)
            begin = line_end + 2
            if size == 0:
                return
            if len(waiting) < begin + size + 2:
                break
            yield at, waiting[begin : begin + size]
            waiting = waiting[begin + size + 2 :]


def _events(pieces: list[tuple[float, bytes]]) -> Iterator[tuple[float, dict[str, Any]]]:
    """The `data:` lines' documents; comments and the closing [DONE] are left out."""
    waiting = b""
    for at, data in pieces:
        *lines, waiting = (waiting + data).split(b"\n")
        for line in lines:
            payload = line.rstrip(b"\r").removeprefix(b"data:").strip()
            if line.startswith(b"data:") and payload != b"[DONE]":
                yield at, json.loads(payload)


def _whole(pieces: list[tuple[float, bytes]]) -> Iterator[tuple[float, dict[str, Any]]]:
    body = b"".join(data for _, data in pieces)
    yield pieces[-1][0], json.loads(body)
