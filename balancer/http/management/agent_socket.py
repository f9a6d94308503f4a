"""WS /agents/connect: one agent's socket, joined to its socket-free `AgentLink`.

Frames go to the link as they come. What the link sends is collected and written once per loop
tick, straight to the transport, as few text frames as the size allows; a message too big for one
follows in binary pieces as the agent grants credit. Nothing an agent does here can end the
balancer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import cast

import structlog
from aiohttp import WSMessage, WSMsgType
from aiohttp.web import StreamResponse, WebSocketResponse

from balancer.errors import ClientDropped, Forbidden, InvalidRequest, LinkRefused
from balancer.fleet.agent_link import AgentLink
from balancer.http.answers import SECURITY_HEADERS
from balancer.http.client_certificate import certificate_names
from balancer.http.connection import ClientConnection
from balancer.http.exchange import Exchange, Wiring
from balancer.http.frames import binary_frame, close_frame, is_handshake, text_frame
from balancer.policy.identity.badge import Badge
from balancer.settings import MIB, Settings
from protocol import transfers
from protocol.codec import MAX_FRAME_BYTES
from protocol.streams import Source
from protocol.transfer_messages import AbortTransfer, Credit

log = structlog.get_logger(__name__)

REGISTER_TIMEOUT_S = 5.0
MAX_UNSENT_BYTES = 16 * MIB
"""More than this unread by an agent, and its link is closed: it hangs, or its network does. Big
messages do not count: they go no further than the agent's credit."""
STALLED_TRANSFER_S = 30.0
"""An agent that grants no credit for so long loses its link at the next message."""
_UNSENT_MARK_BYTES = MIB
_CLOSE_PATIENCE_S = 2.0


async def connect_agent(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """Serve one agent's link until either side ends it."""
    socket = WebSocketResponse(
        compress=False, max_msg_size=MAX_FRAME_BYTES, timeout=_CLOSE_PATIENCE_S
    )
    if not is_handshake(socket, exchange.request):
        raise InvalidRequest("agents connect here with a WebSocket")
    with wiring.audit.noting_refusals("agent.refused", exchange):
        badge = _badge_of(exchange, wiring.settings)
    socket.headers.update({**SECURITY_HEADERS, **exchange.headers()})
    try:
        await socket.prepare(exchange.request)
    except ConnectionError as error:
        raise ClientDropped("the agent left before its link began") from error
    exchange.status = 101
    outbox = Outbox(cast(ClientConnection, exchange.request.protocol))
    link = wiring.roster.open_link(
        send=outbox.send,
        close=outbox.close,
        on_transfer=outbox.on_transfer,
        streams=outbox,
        on_introduced=partial(_note_introduction, exchange, wiring),
        badge=badge,
    )
    outbox.on_overflow = link.close
    silence = asyncio.get_running_loop().call_later(REGISTER_TIMEOUT_S, _end_stranger, link)
    reason = "its connection ended"
    try:
        with wiring.gate.lasting_for(exchange, link.close):
            reason = await _read_frames(socket, link)
    finally:
        silence.cancel()
        exchange.facts.update(agent=link.agent_name, reason=reason)
        link.close(reason)
        outbox.closed()
    return socket


def _note_introduction(
    exchange: Exchange, wiring: Wiring, name: str, refusal: LinkRefused | None
) -> None:
    if refusal is None:
        wiring.audit.note("agent.join", exchange, target=name)
        return
    wiring.audit.note(
        "agent.refused", exchange, target=name, outcome="refused", reason=refusal.reason
    )
    log.warning(
        "agent refused",
        agent=name,
        reason=refusal.reason,
        key=exchange.principal.id or None,
        address=exchange.address,
    )


def _badge_of(exchange: Exchange, settings: Settings) -> Badge:
    """Raises `Forbidden` where agents need a certificate and this one came without."""
    principal, transport = exchange.principal, exchange.request.transport
    certificate = None if transport is None else transport.get_extra_info("peercert")
    names = certificate_names(certificate)
    if settings.tls_client_ca and names is None:
        raise Forbidden(
            "agents need a client certificate here; start this one with --client-certificate and "
            "--client-key",
            code="client_certificate_required",
        )
    return Badge(
        id=principal.id,
        agents=principal.agents,
        labels=principal.labels,
        certificate_names=names,
        is_named_by_certificate=settings.tls_agents_by_name,
    )


async def _read_frames(socket: WebSocketResponse, link: AgentLink) -> str:
    """Feed the link until the socket ends; returns why it did."""
    while True:
        message: WSMessage = await socket.receive()
        if message.type is WSMsgType.TEXT:
            link.receive(message.data)
        elif message.type is WSMsgType.BINARY:
            link.receive_piece(message.data)
        elif message.type is WSMsgType.ERROR:
            log.warning("bad frame from an agent", agent=link.agent_name, reason=str(message.data))
            return f"bad frame: {message.data}"
        else:
            return f"closed by the agent ({socket.close_code})"
        if link.is_closed:
            return "closed by the balancer"


def _end_stranger(link: AgentLink) -> None:
    if not link.is_registered:
        log.warning("agent did not register", waited_s=REGISTER_TIMEOUT_S)
        link.close(f"no `register` within {REGISTER_TIMEOUT_S:g} s")


class Outbox:
    """What waits to be written to one agent; written once per loop tick, bounded."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._messages = transfers.Outbox()
        self._last_progress = self._loop.time()
        self._is_scheduled = False
        self._is_closed = False
        self.on_overflow: Callable[[str], None] = self.close
        connection.is_agent = True
        if connection.transport is not None:
            connection.transport.set_write_buffer_limits(high=_UNSENT_MARK_BYTES)

    def send(self, message: bytes) -> None:
        """Queue one encoded message; too many unread bytes close the link.

        Raises `FrameTooLarge` for a message that cannot be sent at all; nothing else is lost then.
        """
        if self._is_closed:
            return
        if not self._messages.awaits_credit:
            self._last_progress = self._loop.time()
        self._messages.put(message)
        self._schedule()
        if self._loop.time() - self._last_progress > STALLED_TRANSFER_S:
            self._loop.call_soon(self.on_overflow, "the agent takes no part of a big message")
        if self._messages.unsent_text_bytes + self._connection.unsent_bytes() > MAX_UNSENT_BYTES:
            self._loop.call_soon(self.on_overflow, "the agent does not read")

    def on_transfer(self, message: Credit | AbortTransfer) -> None:
        """The agent took pieces of a big message, or wants no more of it."""
        self._last_progress = self._loop.time()
        if isinstance(message, Credit):
            self._messages.on_credit(message)
        else:
            self._messages.on_abort(message)
        self._schedule()

    def put_stream(self, call_id: int, source: Source) -> None:
        """Queue what is not in memory, as `AgentLink` wants it of its `Streams`."""
        if self._is_closed:
            source.close()
            return
        self._messages.put_stream(call_id, source)
        self._schedule()

    def drop_stream(self, call_id: int) -> None:
        """Send nothing more of it."""
        self._messages.drop_stream(call_id)

    def wake_streams(self) -> None:
        """A source has more."""
        self._schedule()

    def closed(self) -> None:
        """The socket is gone: so are the sources."""
        self._is_closed = True
        self._messages.close()

    def close(self, reason: str) -> None:
        """Write what is queued and a close frame, then close; unread bytes may linger briefly."""
        if self._is_closed:
            return
        self._flush()
        self._is_closed = True
        transport = self._connection.transport
        if transport is None or transport.is_closing():
            return
        transport.write(close_frame(reason))
        transport.close()
        self._loop.call_later(_CLOSE_PATIENCE_S, transport.abort)

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_scheduled = False
        transport = self._connection.transport
        if self._is_closed or transport is None or transport.is_closing():
            return
        written = [text_frame(frame) for frame in self._messages.take_text()]
        written += [binary_frame(piece) for piece in self._messages.take_binary()]
        if written:
            transport.write(b"".join(written))
