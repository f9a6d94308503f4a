"""Fresh connections until they are encrypted: bounded in number and time, and each failure named.

A connection is accepted as it is and encrypted then, with what is in force at that moment: so a
renewed certificate needs no other socket, and who does not get through has an address.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from typing import TYPE_CHECKING, Literal, cast

import structlog

from balancer.errors import BalancerError

if TYPE_CHECKING:
    from balancer.http.client_server import ClientServer
    from balancer.http.connection import ClientConnection
    from balancer.http.connection_count import Place

log = structlog.get_logger(__name__)

MOST = 1024
"""Handshakes at once; further connections are closed."""
MOST_OF_ADDRESS = 128
"""Of one client address."""

Failure = Literal[
    "plain_http", "not_tls", "old_tls", "client_certificate", "not_trusted", "timeout", "too_many",
    "left", "failed",
]  # fmt: skip
_BY_REASON: dict[str, Failure] = {
    "HTTP_REQUEST": "plain_http",
    "WRONG_VERSION_NUMBER": "not_tls",
    "UNEXPECTED_MESSAGE": "not_tls",
    "RECORD_LAYER_FAILURE": "not_tls",
    "UNSUPPORTED_PROTOCOL": "old_tls",
    "VERSION_TOO_LOW": "old_tls",
    "CERTIFICATE_VERIFY_FAILED": "client_certificate",
}
_MEANS: dict[Failure, str] = {
    "plain_http": "it speaks plain HTTP, this port speaks TLS: its URL must begin with https://, "
    "an agent's --balancer with wss://",
    "not_tls": "it does not speak TLS, this port does",
    "old_tls": "it speaks no TLS 1.2 or newer",
    "client_certificate": "its client certificate is not signed by tls_client_ca, or has expired",
    "not_trusted": "it does not trust this balancer's certificate: give it the CA's",
    "timeout": "it did not finish within tls_handshake_timeout_s",
    "too_many": "too many handshakes go on",
}


class Handshakes:
    """All that go on at one port."""

    def __init__(self, port: ClientServer) -> None:
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._of_address: Counter[str] = Counter()

    def close(self) -> None:
        """End those that are not over."""
        for task in tuple(self._tasks):
            task.cancel()

    def begin(
        self, newcomer: Newcomer, carrier: asyncio.Transport, context: ssl.SSLContext
    ) -> None:
        """Encrypt it, or close it where there is no room: unencrypted it could not read why."""
        address = str((carrier.get_extra_info("peername") or ("",))[0])
        if len(self._tasks) >= MOST or self._of_address[address] >= MOST_OF_ADDRESS:
            self._failed("too_many", address)
            carrier.abort()
            return
        try:
            place = self._port.count.enter(address)
        except BalancerError as error:
            self._port.count_refusal(error, address)
            carrier.abort()
            return
        self._of_address[address] += 1
        task = self._loop.create_task(self._encrypt(newcomer, carrier, context, address, place))
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._over(task, address, newcomer, place))

    async def _encrypt(
        self,
        newcomer: Newcomer,
        carrier: asyncio.Transport,
        context: ssl.SSLContext,
        address: str,
        place: Place,
    ) -> None:
        settings = self._port.live.current
        self._loop.call_soon(newcomer.give_back, carrier)  # TLS listens by then
        try:
            encrypted = await self._loop.start_tls(
                carrier,
                newcomer,
                context,
                server_side=True,
                ssl_handshake_timeout=settings.tls_handshake_timeout_s,
                ssl_shutdown_timeout=settings.slow_client_timeout_s,
            )
        except OSError as error:
            self._failed(_failure_of(error), address, error)
            carrier.abort()
            return
        if encrypted is None or encrypted.is_closing() or newcomer.is_lost:
            self._failed("left", address)
            carrier.abort()
            return
        newcomer.hand_over(encrypted, carrier, place)

    def _over(
        self, task: asyncio.Task[None], address: str, newcomer: Newcomer, place: Place
    ) -> None:
        """Its place goes with it, unless the connection has it now."""
        self._tasks.discard(task)
        self._of_address[address] -= 1
        if not self._of_address[address]:
            del self._of_address[address]
        if not newcomer.is_handed_over:
            self._port.count.leave(place)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("handshake ended badly", exc_info=error)

    def _failed(self, failure: Failure, address: str, error: Exception | None = None) -> None:
        """Who only looked whether somebody listens is no news."""
        self._port.metrics.handshake_failed(failure)
        if failure != "left":
            means = _MEANS.get(failure) or str(error)
            self._port.rare_log.warning(
                "TLS handshake failed", reason=failure, address=address, means=means
            )


class Newcomer(asyncio.Protocol):
    """A socket that was just accepted: holds what comes early, and remembers whether it went."""

    def __init__(
        self, handshakes: Handshakes, context: ssl.SSLContext, connection: ClientConnection
    ) -> None:
        self._handshakes = handshakes
        self._context = context
        self._connection = connection
        self._early: list[bytes] = []
        self.is_lost = False
        self.is_handed_over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TLS begins with the next tick."""
        self._handshakes.begin(self, cast(asyncio.Transport, transport), self._context)

    def data_received(self, data: bytes) -> None:
        """What comes in the tick before TLS listens, or, decrypted, in the one before the
        connection does."""
        self._early.append(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Gone before it began."""
        del exc
        self.is_lost = True

    def give_back(self, carrier: asyncio.Transport) -> None:
        """Let TLS have what came before it listened."""
        protocol = carrier.get_protocol()
        data = b"".join(self._early)
        self._early.clear()
        while data and not self.is_lost and protocol is not self:
            listener = cast(asyncio.BufferedProtocol, protocol)
            room = memoryview(listener.get_buffer(len(data)))
            taken = min(len(room), len(data))
            room[:taken] = data[:taken]
            listener.buffer_updated(taken)
            data = data[taken:]

    def hand_over(
        self, encrypted: asyncio.Transport, carrier: asyncio.Transport, place: Place
    ) -> None:
        """From now on it is the connection's."""
        self.is_handed_over = True
        carrier.set_protocol(_Below(carrier.get_protocol(), self._connection))
        encrypted.set_protocol(self._connection)
        self._connection.carried_by(carrier, place)
        self._connection.connection_made(encrypted)
        for data in self._early:
            self._connection.data_received(data)


class _Below(asyncio.BufferedProtocol):
    """Between TLS and its carrier. TLS does not tell that the carrier holds much, nor that the peer
    closed its end without TLS' goodbye: without TLS the connection hears both."""

    def __init__(self, tls: asyncio.BaseProtocol, connection: ClientConnection) -> None:
        self._tls = cast(asyncio.BufferedProtocol, tls)
        self._connection = connection

    def get_buffer(self, sizehint: int) -> memoryview:
        """TLS' own."""
        return memoryview(self._tls.get_buffer(sizehint))

    def buffer_updated(self, nbytes: int) -> None:
        """Records came."""
        self._tls.buffer_updated(nbytes)

    def eof_received(self) -> None:
        """No more comes, whatever is still to be sent."""
        self._connection.eof_received()

    def pause_writing(self) -> None:
        """The carrier holds much."""
        self._tls.pause_writing()
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """Little again, unless TLS has more for it at once."""
        self._tls.resume_writing()
        self._connection.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """TLS tells the connection."""
        self._tls.connection_lost(exc)


def _failure_of(error: OSError) -> Failure:
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        if reason.startswith(("TLSV1_ALERT", "SSLV3_ALERT", "TLSV13_ALERT")):
            return "not_trusted" if reason.endswith(_DISTRUST) else "failed"
        return _BY_REASON.get(reason, "failed")
    if isinstance(error, ConnectionAbortedError | TimeoutError):
        return "timeout"
    return "left"


_DISTRUST = ("UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN", "CERTIFICATE_EXPIRED")
