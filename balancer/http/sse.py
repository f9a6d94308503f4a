"""Server-sent events, written straight to the client's transport, without a task or a queue.

https://html.spec.whatwg.org/multipage/server-sent-events.html. A stream's status line waits for
its first event, so that an early failure can still be a real status; after a while of waiting it
goes out anyway. Everything here is synchronous and raises nothing: it runs inside the frame
callback of an agent's link, and one client's fault must not reach the others' streams.

    waiting -> open (first event, or the wait is over) -> finished
    any     -> gone (client left, or did not read)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion11
from aiohttp.web import BaseRequest, StreamResponse

from balancer.dispatch.sink import Flow
from balancer.http.answers import SECURITY_HEADERS
from balancer.http.connection import ClientConnection
from balancer.http.exchange import Exchange
from balancer.http.shape import StreamForm
from balancer.observability.metrics import Metrics
from balancer.settings import KIB, Settings

COMMENT = b":\n\n"
CONTENT_TYPE = "text/event-stream; charset=utf-8"
QUEUE_UPDATE_S = 2.0
QUEUE_GRACE_S = 0.05
"""Before a stream that is told of the queue opens: who is refused at once gets a real status, also
where tasks of its own find that out."""
FLUSH_AT_BYTES = 32 * KIB
"""Events of one tick are joined until they are this many bytes."""

_HEADERS = {
    **SECURITY_HEADERS,
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}


class StreamWritten(StreamResponse):
    """Tells aiohttp that the answer is out already."""

    def __init__(self, *, keep_alive: bool) -> None:
        super().__init__(status=200)
        self._keep_alive = keep_alive

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        """Nothing is left to do."""
        del request
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to do."""


class EventStream:
    """One stream of events. At most `max_unsent_bytes` and one step are held for its client:
    at half of that the generation pauses, past it, or after too long a pause, the client is
    dropped. `head` is asked for further headers when the status line goes out. With `queued`, that
    is almost at once, and what it says goes out whenever that changes, until it says nothing."""

    __slots__ = (
        "_connection",
        "_exchange",
        "_flow",
        "_flush_handle",
        "_form",
        "_head",
        "_is_chunked",
        "_is_over",
        "_keep_alive",
        "_last_write_s",
        "_loop",
        "_metrics",
        "_pending",
        "_pending_bytes",
        "_queue_timer",
        "_queued",
        "_settings",
        "_timer",
        "_told",
        "_unsent_bytes",
        "is_open",
    )

    def __init__(
        self,
        exchange: Exchange,
        *,
        settings: Settings,
        metrics: Metrics,
        form: StreamForm,
        head: Callable[[], dict[str, str]],
        queued: Callable[[], bytes] | None = None,
    ) -> None:
        request = exchange.request
        self._exchange = exchange
        self._settings = settings
        self._metrics = metrics
        self._form = form
        self._head = head
        self._connection = cast(ClientConnection, request.protocol)
        self._is_chunked = request.version >= HttpVersion11
        self._keep_alive = request.keep_alive and self._is_chunked
        self._loop = asyncio.get_running_loop()
        self._flow: Flow | None = None
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._unsent_bytes = 0
        self._flush_handle: asyncio.Handle | None = None
        self._is_over = False
        self.is_open = False
        self._last_write_s = self._loop.time()
        self._timer = self._loop.call_later(settings.first_token_header_delay_s, self._on_silence)
        self._connection.watcher = self
        self._queued = queued
        self._told = b""
        self._queue_timer: asyncio.Handle | None = None
        if queued is not None:
            self._queue_timer = self._loop.call_later(QUEUE_GRACE_S, self._tell_queue)

    def attach(self, flow: Flow) -> None:
        """The generation that fills this stream; it is paused while the client does not read."""
        self._flow = flow

    def open(self) -> None:
        """Send the status line and headers, once."""
        if not self.is_open and not self._is_over:
            self.is_open = True
            self._exchange.status = 200
            self._write(self._status_and_headers())
            self._timer.cancel()
            self._timer = self._loop.call_later(self._settings.comment_interval_s, self._on_silence)

    def send(self, events: bytes) -> None:
        """Queue whole events for the end of this tick."""
        if self._is_over or not events:
            return
        self._pending.append(events)
        self._pending_bytes += len(events)
        held_bytes = self._unsent_bytes + self._pending_bytes
        if self._pending_bytes >= FLUSH_AT_BYTES or held_bytes > self._settings.max_unsent_bytes:
            self._flush()
        elif self._flush_handle is None:
            self._flush_handle = self._loop.call_soon(self._flush)

    def finish(self, events: bytes) -> StreamResponse:
        """Send the last events and end the answer properly."""
        self.send(events)
        self._flush()
        if self._is_chunked and not self._is_over:
            self._write(b"0\r\n\r\n")
        self.close()
        return StreamWritten(keep_alive=self._keep_alive)

    def close(self) -> None:
        """Let go of everything; call it however the generation ended."""
        self._is_over = True
        self._timer.cancel()
        if self._queue_timer is not None:
            self._queue_timer.cancel()
        self._pending.clear()
        self._flow = None
        if self._flush_handle is not None:
            self._flush_handle.cancel()
        if self._connection.watcher is self:
            self._connection.watcher = None

    def on_writing_paused(self) -> None:
        """The client reads too slowly: stop producing."""
        if self._flow is not None:
            self._metrics.stream_pauses.inc()
            self._flow.pause()

    def on_writing_resumed(self) -> None:
        """The client caught up."""
        if self._flow is not None:
            self._flow.resume()

    def on_dropped(self) -> None:
        """The connection gave the client up."""
        flow, self._flow = self._flow, None
        if flow is not None:
            self._metrics.slow_clients_dropped.inc()
            flow.drop("the client does not read")

    def _flush(self) -> None:
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
        if self._is_over or not self._pending:
            return
        self.open()
        data = self._pending[0] if len(self._pending) == 1 else b"".join(self._pending)
        self._pending.clear()
        self._pending_bytes = 0
        if self._connection.unsent_bytes() + len(data) > self._settings.max_unsent_bytes:
            self._connection.drop_slow_client()
            return
        self._write(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)
        self._unsent_bytes = self._connection.unsent_bytes()
        self._metrics.stream_held(self._unsent_bytes)

    def _write(self, data: bytes) -> None:
        """Writing to a closed transport raises; a client that left is noticed elsewhere."""
        transport = self._connection.transport
        if transport is not None and not transport.is_closing():
            self._last_write_s = self._loop.time()
            transport.write(data)

    def _on_silence(self) -> None:
        """Show that we live: the headers at first, then a comment each time it was silent."""
        interval_s = self._settings.comment_interval_s
        if not self.is_open:
            self.open()
            return
        if (left_s := self._last_write_s + interval_s - self._loop.time()) > 0:
            self._timer = self._loop.call_later(left_s, self._on_silence)
            return
        if not self._connection.writing_paused:
            self.send(self._form.comment)
        self._timer = self._loop.call_later(interval_s, self._on_silence)

    def _tell_queue(self) -> None:
        """Where the request stands, while it waits."""
        words = b"" if self._queued is None or self._is_over else self._queued()
        if not words:
            return
        self.open()
        if words != self._told and not self._connection.writing_paused:
            self.send(words)
            self._told = words
        self._queue_timer = self._loop.call_later(QUEUE_UPDATE_S, self._tell_queue)

    def _status_and_headers(self) -> bytes:
        headers = {
            **_HEADERS,
            "Content-Type": self._form.content_type,
            **self._exchange.headers(),
            **self._head(),
        }
        if self._is_chunked:
            headers["Transfer-Encoding"] = "chunked"
        if not self._keep_alive:
            headers["Connection"] = "close"
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode("latin-1")
