"""One port: its connections, how many they are, and who is turned away."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, cast

from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion10, HttpVersion11, RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web import BaseRequest, RequestHandler, Server, StreamResponse

from balancer.errors import (
    BalancerError,
    HeadTooLarge,
    InvalidRequest,
    LimitExceeded,
    RequestTooSlow,
    TargetTooLong,
    TooManyConnections,
)
from balancer.http.connection import ClientConnection
from balancer.http.connection_count import ConnectionCount
from balancer.http.handshakes import Handshakes, Newcomer
from balancer.http.head_faults import MAX_HEADERS, max_target_bytes
from balancer.http.head_watch import HeadWatch
from balancer.observability.metrics import EdgeReason, Metrics
from balancer.observability.rare_log import RareLog
from balancer.settings import LiveSettings

_VERSIONS = (HttpVersion10, HttpVersion11)
_MAX_TURNED_AWAY = 64
"""Connections that may still read why; past it nobody is told."""
_PARTING_S = 1.0
_REASONS: dict[type[BalancerError], EdgeReason] = {
    TooManyConnections: "connections",
    LimitExceeded: "connections_of_address",
    RequestTooSlow: "slow_head",
    HeadTooLarge: "large_head",
    TargetTooLong: "long_target",
    InvalidRequest: "no_http",
}

Refuse = Callable[[BaseRequest, BalancerError | None], StreamResponse]
"""Makes the answer to what is not HTTP; without an error the fault is ours."""


class ClientServer(Server):
    """aiohttp's low-level server with our connections; make it inside the running loop."""

    def __init__(
        self,
        handler: Callable[[BaseRequest], Any],
        *,
        settings: LiveSettings,
        metrics: Metrics,
        count: ConnectionCount,
        refuse: Refuse,
        in_short: Callable[[BalancerError], bytes],
        tls: Callable[[], ssl.SSLContext | None],
    ) -> None:
        """`in_short` makes the bytes of an answer to what is no request yet; `tls`: what new
        connections are encrypted with, if they are."""
        self.live = settings
        self.metrics = metrics
        self.count = count
        self.refuse = refuse
        self.in_short = in_short
        self.heads = HeadWatch(settings)
        self.rare_log = RareLog()
        self._tls = tls
        self._handshakes = Handshakes(self)
        self._turned_away: set[asyncio.Transport] = set()
        super().__init__(
            handler,
            handler_cancellation=True,
            auto_decompress=False,  # `content_encoding` bounds what comes out
            access_log=None,
        )

    def __call__(self) -> asyncio.Protocol:  # type: ignore[override]  # aiohttp promises its own handler
        """A connection for a fresh socket, under the settings in force now."""
        connection, context = self._connection(), self._tls()
        return connection if context is None else Newcomer(self._handshakes, context, connection)

    def _connection(self) -> ClientConnection:
        settings = self.live.current
        return ClientConnection(
            self,
            loop=self._loop,
            keepalive_timeout=settings.idle_timeout_s,
            max_line_size=max_target_bytes(settings.max_header_bytes),
            max_field_size=settings.max_header_bytes,
            max_headers=MAX_HEADERS,
            **self._kwargs,
        )

    def count_refusal(self, error: BalancerError, address: str) -> None:
        """Somebody came no further than to the edge."""
        reason = _REASONS[type(error)]
        self.metrics.refused_at_edge(reason)
        self.rare_log.warning(
            "refused at the edge", reason=reason, address=address, why=error.message
        )

    def turn_away(self, transport: asyncio.Transport, error: BalancerError, address: str) -> None:
        """Say why, and end the connection. It is read from for a while: a socket that is closed
        with unread bytes takes the answer back (RFC 9112, section 9.6)."""
        self.count_refusal(error, address)
        if len(self._turned_away) >= _MAX_TURNED_AWAY:
            transport.abort()
            return
        transport.write(self.in_short(error))
        if transport.can_write_eof():
            transport.write_eof()
        else:  # TLS cannot be half closed
            transport.close()
        self._turned_away.add(transport)
        self._loop.call_later(_PARTING_S, self._part, transport)

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 (aiohttp's)
        """End what is open."""
        self.heads.close()
        self._handshakes.close()
        for transport in tuple(self._turned_away):
            self._part(transport)
        await super().shutdown(timeout)

    def _part(self, transport: asyncio.Transport) -> None:
        self._turned_away.discard(transport)
        transport.abort()

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
