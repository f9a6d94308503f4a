"""One client's connection: aiohttp's own, taught to notice clients that left or do not read.

aiohttp ignores a half-close, and a transport's `close()` waits for unsent bytes however long that
takes. Here the end of what a client sends is its end, and unread bytes have a deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, cast

import structlog
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion10, HttpVersion11, RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web import (
    BaseRequest,
    RequestHandler,
    RequestPayloadError,
    Server,
    StreamResponse,
)

from balancer.observability.metrics import Metrics
from balancer.settings import LiveSettings

_VERSIONS = (HttpVersion10, HttpVersion11)

log = structlog.get_logger(__name__)

Refuse = Callable[[BaseRequest, int], StreamResponse]
"""Makes the answer to what is not HTTP; the second value is the status."""


class WritingWatcher(Protocol):
    """Who wants to know that a connection's unsent bytes pass the mark, or fell again."""

    def on_writing_paused(self) -> None: ...

    def on_writing_resumed(self) -> None: ...

    def on_dropped(self) -> None:
        """The client took too long; its connection is being aborted."""


class ClientConnection(RequestHandler):
    """A connection with a deadline on unread bytes. `watcher` is the answer now being streamed."""

    def __init__(self, server: ClientServer, **options: Any) -> None:
        super().__init__(server, **options)
        self._live = server.live
        self._metrics = server.metrics
        self._refuse = server.refuse
        self._slow_timer: asyncio.TimerHandle | None = None
        self.watcher: WritingWatcher | None = None
        self.is_agent = False
        self.speaks_our_http = True
        """Whether the request that is now being answered is of HTTP/1.0 or 1.1."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Half of the cap is the mark: what is on its way when a generation is paused fits too."""
        super().connection_made(transport)
        high = self._live.current.max_unsent_bytes // 2
        cast(asyncio.Transport, transport).set_write_buffer_limits(high=high, low=high // 4)

    def eof_received(self) -> None:
        """A client that says no more is taken to be gone, in every phase."""
        self.abort()

    def pause_writing(self) -> None:
        """Unsent bytes passed the mark: the clock runs."""
        super().pause_writing()
        self._slow_timer = self._loop.call_later(
            self._live.current.slow_client_timeout_s, self.drop_slow_client
        )
        if self.watcher is not None:
            self.watcher.on_writing_paused()

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self._stop_clock()
        if self.watcher is not None:
            self.watcher.on_writing_resumed()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Cancels the handler too: the server is made with `handler_cancellation`."""
        self._stop_clock()
        super().connection_lost(exc)

    def force_close(self) -> None:
        """Close; a client has a while to read what is left, not for ever."""
        self._bound_close()
        super().force_close()

    async def start(self) -> None:
        """aiohttp's loop over requests; the same holds when it ends by itself."""
        await super().start()
        self._bound_close()

    def ignore_rest(self) -> None:
        """Do not read on in a request whose body turned out to be unreadable."""
        self._lingering_time = 0.0

    def abort(self) -> None:
        """End the connection now; unsent bytes are dropped."""
        if self.transport is not None:
            self.transport.abort()

    def drop_slow_client(self) -> None:
        """Give a client up that does not read."""
        self._stop_clock()
        log.warning("peer does not read", unsent_bytes=self.unsent_bytes())
        if self.watcher is not None:
            self.watcher.on_dropped()
        elif not self.is_agent:
            self._metrics.slow_clients_dropped.inc()
        self.abort()

    def unsent_bytes(self) -> int:
        """Bytes given to the transport that the kernel has not taken."""
        transport = self.transport
        return 0 if transport is None else transport.get_write_buffer_size()

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 (aiohttp's signature)
    ) -> StreamResponse:
        """The answer where no handler answered: what came is not HTTP, or we failed badly."""
        if status >= 500:
            log.error("answer failed", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun, there is no room for an error")
        response = self._refuse(request, status)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **options: Any) -> None:
        """A body that nobody read, and that turns out to be unreadable, is no fault of ours."""
        if not isinstance(options.get("exc_info"), RequestPayloadError):
            super().log_exception(*args, **options)

    def _bound_close(self) -> None:
        transport = self.transport
        if transport is not None and transport.get_write_buffer_size():
            self._loop.call_later(self._live.current.slow_client_timeout_s, transport.abort)

    def _stop_clock(self) -> None:
        if self._slow_timer is not None:
            self._slow_timer.cancel()
            self._slow_timer = None


class ClientServer(Server):
    """aiohttp's low-level server with our connections; make it inside the running loop."""

    def __init__(
        self,
        handler: Callable[[BaseRequest], Any],
        *,
        settings: LiveSettings,
        metrics: Metrics,
        refuse: Refuse,
    ) -> None:
        self.live = settings
        self.metrics = metrics
        self.refuse = refuse
        super().__init__(
            handler,
            handler_cancellation=True,
            auto_decompress=False,  # `content_encoding` bounds what comes out
            access_log=None,
        )

    def __call__(self) -> RequestHandler:
        """A connection for a fresh socket, under the settings in force now."""
        settings = self.live.current
        return ClientConnection(
            self,
            loop=self._loop,
            keepalive_timeout=settings.idle_timeout_s,
            max_line_size=settings.max_header_bytes,
            max_field_size=settings.max_header_bytes,
            **self._kwargs,
        )

    def _make_request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> BaseRequest:
        version = message.version
        cast(ClientConnection, protocol).speaks_our_http = version in _VERSIONS
        if version not in _VERSIONS:
            message = message._replace(version=HttpVersion11)  # which the answer's would be, too
        return BaseRequest(
            message, payload, protocol, writer, task, self._loop,
            client_max_size=self.live.current.max_body_bytes,
        )  # fmt: skip
