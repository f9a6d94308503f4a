"""One client's connection: aiohttp's own, taught to notice clients that left or do not read.

aiohttp ignores a half-close, and a transport's `close()` waits for unsent bytes however long that
takes. Here the end of what a client sends is its end, and unread bytes have a deadline.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol, cast

import structlog
from aiohttp.web import BaseRequest, RequestHandler, RequestPayloadError, StreamResponse

from balancer.errors import BalancerError, ClientMistake, RequestTooSlow
from balancer.http.head_faults import head_fault, head_too_large

if TYPE_CHECKING:
    from balancer.http.client_server import ClientServer
    from balancer.http.connection_count import Place

log = structlog.get_logger(__name__)


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
        self._slow_timer: asyncio.TimerHandle | None = None
        self._port = server
        self._place: Place | None = None
        self._carrier: asyncio.Transport | None = None
        """Under TLS: what its records go through."""
        self._holders = 0
        """Who holds writing up: the transport, its carrier."""
        self.remote = ""
        """The peer's address."""
        self._heads_seen = 0
        self._head_bytes = 0
        """Of a head that is not whole."""
        self.watcher: WritingWatcher | None = None
        self.is_agent = False
        self.speaks_our_http = True
        """Whether the request that is now being answered is of HTTP/1.0 or 1.1."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Half of the cap is the mark: what is on its way when a generation is paused fits too."""
        peer = transport.get_extra_info("peername")
        self.remote = str(peer[0]) if isinstance(peer, tuple) else ""
        try:
            self._place = self._place or self._port.count.enter(self.remote)
        except BalancerError as error:
            self._port.turn_away(cast(asyncio.Transport, transport), error, self.remote)
            return
        super().connection_made(transport)
        self._port.heads.begin(self)
        high = self._live.current.max_unsent_bytes // 2
        if self._carrier is not None:  # TLS holds bytes only when its carrier is full
            self._carrier.set_write_buffer_limits(high=high, low=high // 4)
        cast(asyncio.Transport, transport).set_write_buffer_limits(high=high, low=high // 4)

    def carried_by(self, carrier: asyncio.Transport, place: Place) -> None:
        """The connection is encrypted, and has its place; called before it is made."""
        self._carrier = carrier
        self._place = place

    def data_received(self, data: bytes) -> None:
        """aiohttp's parser looks at each header and at their number, not at all they are together,
        and waits for the end of a head for ever."""
        if self._place is None:
            return
        request = self._current_request
        is_body = request is not None and not request.content.is_eof()
        super().data_received(data)
        if self._request_count != self._heads_seen:
            self._heads_seen = self._request_count
            self._head_bytes = 0
            self._port.heads.end(self)
        elif (
            not is_body
            and not self._upgraded
            and self._payload_parser is None
            and not self._force_close
        ):
            self._count_head(data)

    def give_up_head(self) -> None:
        """The rest of the head did not come. What sent nothing hears nothing: it may be a
        connection that a browser opened in advance."""
        if self._head_bytes:
            self._refuse_head(RequestTooSlow("the request's head did not arrive in time"))
            return
        self._metrics.refused_at_edge("slow_head")
        self.abort()

    def eof_received(self) -> None:
        """A client that says no more is taken to be gone, in every phase."""
        self.abort()

    def pause_writing(self) -> None:
        """Unsent bytes passed the mark: the clock runs. Under TLS both it and its carrier say
        so."""
        self._holders += 1
        if self._holders > 1:
            return
        super().pause_writing()
        self._slow_timer = self._loop.call_later(
            self._live.current.slow_client_timeout_s, self.drop_slow_client
        )
        if self.watcher is not None:
            self.watcher.on_writing_paused()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._holders -= 1
        if self._holders:
            return
        super().resume_writing()
        self._stop_clock()
        if self.watcher is not None:
            self.watcher.on_writing_resumed()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Cancels the handler too: the server is made with `handler_cancellation`."""
        self._stop_clock()
        self._port.heads.end(self)
        if self._place is not None:
            self._port.count.leave(self._place)
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
        transport, carrier = self.transport, self._carrier
        if transport is None:
            return 0
        unsent = transport.get_write_buffer_size()
        return unsent if carrier is None else unsent + carrier.get_write_buffer_size()

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
        fault = head_fault(exc) if status < 500 else None
        if fault is not None:
            self._port.count_refusal(fault, self.remote)
        response = self._port.refuse(request, fault)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **options: Any) -> None:
        """A body that nobody read, and that turns out to be unreadable, is no fault of ours."""
        if not isinstance(options.get("exc_info"), RequestPayloadError):
            super().log_exception(*args, **options)

    def _count_head(self, data: bytes) -> None:
        """What came belongs to a head, if the body of the request at hand is whole; of one that
        nobody has begun to handle, or whose rest nobody wants, that is not known."""
        waiter = self._waiter
        is_awaited = waiter is not None and not waiter.done()
        if not is_awaited and self._current_request is None:
            return
        if not self._head_bytes and not data.strip(b"\r\n"):
            return  # empty lines before a request mean nothing (RFC 9112, section 2.2)
        self._head_bytes += len(data)
        if is_awaited:
            self._port.heads.begin(self)
        limit_bytes = self._live.current.max_header_bytes
        if self._head_bytes > limit_bytes:
            self._refuse_head(head_too_large(limit_bytes))

    def _refuse_head(self, error: ClientMistake) -> None:
        """Answer what is no request yet; while another answer is written, there is no room."""
        self._port.heads.end(self)
        self._port.count_refusal(error, self.remote)
        if self._current_request is None and self.transport is not None:
            self.transport.write(self._port.in_short(error))
            self.force_close()
        else:
            self.abort()

    def _bound_close(self) -> None:
        transport = self.transport
        if transport is not None and self.unsent_bytes():
            self._loop.call_later(self._live.current.slow_client_timeout_s, transport.abort)

    def _stop_clock(self) -> None:
        if self._slow_timer is not None:
            self._slow_timer.cancel()
            self._slow_timer = None
