"""The agent's end of the link: dial, register, decode, send, and dial again when it broke.

Knows messages by their form only; what they mean is the listener's. Everything here runs on the
event loop; `send` may be called from any callback of it.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable
from typing import NoReturn, Protocol

import structlog
from msgspec import Struct
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.frames import CloseCode

from agent.errors import ConfigError, RegistrationRefused
from agent.link_tls import trouble_of
from agent.settings import BalancerAddress
from protocol.codec import (
    AGENT_RECEIVES,
    MAX_FRAME_BYTES,
    decode_result,
    encode_error,
    encode_request,
)
from protocol.errors import FrameTooLarge, ProtocolError
from protocol.jsonrpc import (
    ErrorObject,
    ErrorResponse,
    Message,
    Notification,
    Request,
    Response,
    RpcCode,
)
from protocol.refusals import RefusalCode
from protocol.streams import Sink, Source
from protocol.to_balancer import (
    OLDEST_PROTOCOL_VERSION,
    PROTOCOL_VERSION,
    Register,
    Welcome,
)
from protocol.transfer_messages import AbortTransfer, Credit
from protocol.transfers import MAX_TRANSFER_BYTES, Inbox, Outbox

log = structlog.get_logger()

LONGEST_DELAY_S = 3.0
FIRST_DELAY_S = 0.1
STEADY_LINK_S = 5.0
"""A link that lasted this long starts the count of delays anew."""
LONGEST_REFUSED_DELAY_S = 30.0
"""Where the balancer does not let the agent in by these credentials: haste helps nobody."""
DIAL_TIMEOUT_S = 5.0
WELCOME_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 1.0
PING_INTERVAL_S = 10.0
MAX_UNSENT_BYTES = 16 * 1024 * 1024
MAX_UNSENT_DATA_BYTES = 256 * 1024 * 1024
"""Of answers that travel in pieces, as the balancer grants credit for them."""
MAX_COMPLAINTS = 10
"""Log lines about unusable messages, a link; more are only counted."""
_REGISTER_ID = 1


def _part_of(longest_s: float) -> float:
    return random.uniform(0, longest_s)  # noqa: S311 (no secret: it spreads agents that dial again)


class LinkListener(Protocol):
    """Whom the link serves. All synchronous."""

    def registration(self) -> Register:
        """What to introduce the agent with, now."""

    def on_welcome(self, welcome: Welcome) -> None:
        """The link is up; `send` works from now on."""

    def on_message(self, message: Request | Notification) -> None:
        """The balancer asks for something."""

    def on_lost(self) -> None:
        """The link is gone, `send` drops what it is given; another will follow."""


class _End(Struct, frozen=True, kw_only=True):
    """Why a link ended."""

    reason: str
    refusal: ErrorObject | None = None
    is_credential: bool = False
    """Whether the balancer takes no such credentials, or not for this agent."""


class BalancerLink:
    """One link after the other, as long as `run` runs.

    Unsent messages are bounded by 16 MiB, big ones by 256: a balancer that reads nothing loses the
    link then.
    """

    def __init__(
        self,
        address: BalancerAddress,
        listener: LinkListener,
        *,
        token: str = "",
        jitter: Callable[[float], float] = _part_of,
    ) -> None:
        """`token`: what the balancer asks agents for, if it does."""
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._address = address
        self._listener = listener
        self._jitter = jitter
        self._connection: ClientConnection | None = None
        self._is_up = False
        self._was_ever_up = False
        self._trouble = ""
        self._outbox = Outbox()
        self._sending_bytes = 0
        self._wake = asyncio.Event()
        self._flushed = asyncio.Event()
        self._inbox = Inbox()
        self._complaints = 0

    @property
    def is_up(self) -> bool:
        """Whether the agent is registered."""
        return self._is_up

    @property
    def trouble(self) -> str:
        """Why the last link ended or did not come about; empty before any did."""
        return self._trouble

    def send(self, message: bytes) -> None:
        """Queue a message; all of a tick leave together. Dropped while there is no link."""
        if not self._is_up:
            return
        try:
            self._outbox.put(message)
        except FrameTooLarge:
            log.exception("a message of ours is too big for the link")
            self._abort()
            return
        self._queued()

    def send_data(self, call_id: int, data: bytes) -> None:
        """Queue what belongs to a call and is no message, at most 32 MiB; it goes in pieces, behind
        the messages. Dropped while there is no link."""
        if self._is_up:
            self._outbox.put_data(call_id, data)
            self._queued()

    def send_stream(self, call_id: int, source: Source) -> None:
        """Queue what belongs to a call and is not in memory; it goes as `send_data`'s. The source
        is closed when that is over, at once while there is no link."""
        if self._is_up:
            self._outbox.put_stream(call_id, source)
            self._queued()
        else:
            source.close()

    def expect(self, call_id: int, sink: Sink) -> None:
        """Let what the balancer sends for a call go to the sink, until the link breaks; nobody is
        told of that."""
        self._inbox.expect(call_id, sink)

    def drop(self, call_id: int) -> None:
        """Want no more of what comes for a call."""
        self._inbox.drop(call_id)
        self._send_replies()

    async def flushed(self) -> None:
        """Wait until everything queued was handed to the socket, or the link is gone."""
        while self._is_up and self._has_unsent:
            await self._flushed.wait()

    @property
    def _unsent_bytes(self) -> int:
        return self._sending_bytes + self._outbox.unsent_text_bytes

    @property
    def _has_unsent(self) -> bool:
        return bool(self._unsent_bytes or self._outbox.has_transfers)

    def _queued(self) -> None:
        self._flushed.clear()
        self._wake.set()
        data_bytes = self._outbox.unsent_data_bytes
        if self._unsent_bytes > MAX_UNSENT_BYTES or data_bytes > MAX_UNSENT_DATA_BYTES:
            log.error(
                "balancer reads nothing", unsent_bytes=self._unsent_bytes, data_bytes=data_bytes
            )
            self._abort()

    def _abort(self) -> None:
        if self._connection is not None:
            self._connection.transport.abort()

    async def run(self) -> NoReturn:
        """Keep a link until cancelled.

        Raises `RegistrationRefused` if the very first registration is refused; an agent that was
        registered once keeps trying.
        """
        failures = 0
        clock = asyncio.get_running_loop().time
        while True:
            dialled = clock()
            end = await self._one_link()
            failures = 0 if clock() - dialled > STEADY_LINK_S else failures + 1
            if end.refusal is not None and self._is_final(end.refusal):
                raise RegistrationRefused(end.reason)
            self._log_end(end, failures)
            self._trouble = end.reason
            longest_s = LONGEST_REFUSED_DELAY_S if end.is_credential else LONGEST_DELAY_S
            await asyncio.sleep(self._jitter(longest_delay_s(failures, longest_s)))

    def _is_final(self, refusal: ErrorObject) -> bool:
        return not self._was_ever_up and refusal.code != RefusalCode.DRAINING

    def _log_end(self, end: _End, failures: int) -> None:
        """The first failure of a row is news, and one for another reason; the others are detail."""
        is_news = failures <= 1 or end.refusal or end.reason != self._trouble
        say = log.warning if is_news else log.debug
        say("no link to the balancer, trying again", url=self._address.url, reason=end.reason)

    async def _one_link(self) -> _End:
        """Dial and serve one link to its end."""
        tls = self._address.tls
        try:
            async with connect(
                self._address.url,
                compression=None,
                max_size=MAX_FRAME_BYTES,
                open_timeout=DIAL_TIMEOUT_S,
                close_timeout=CLOSE_TIMEOUT_S,
                ping_interval=PING_INTERVAL_S,
                ping_timeout=PING_INTERVAL_S,
                proxy=None,
                additional_headers=self._headers,
                ssl=None if tls is None else tls.context(),
            ) as connection:
                return await self._serve(connection)
        except InvalidStatus as error:
            status = error.response.status_code
            hint = _hint(status, bytes(error.response.body or b""))
            return _End(reason=f"{error}{hint}", is_credential=status in (401, 403))
        except (OSError, TimeoutError, UnicodeError, WebSocketException) as error:
            # a name that no resolver takes, as `a..b`, is a UnicodeError
            return _End(reason=trouble_of(error, is_encrypted=tls is not None))
        except ConfigError as error:
            return _End(reason=str(error))

    async def _serve(self, connection: ClientConnection) -> _End:
        raw = connection.transport.get_extra_info("socket")
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self._inbox = Inbox(collect_data=False)
        self._outbox = Outbox()
        self._complaints = 0
        try:
            async with asyncio.TaskGroup() as tasks:
                writer = tasks.create_task(self._write(connection))
                try:
                    return await self._read(connection)
                except asyncio.CancelledError:
                    # otherwise the context manager would close with 1011, an internal error
                    await connection.close(CloseCode.GOING_AWAY)
                    raise
                finally:
                    writer.cancel()
        finally:
            self._down()

    def _down(self) -> None:
        was_up, self._is_up = self._is_up, False
        self._connection = None
        self._outbox.close()
        self._outbox = Outbox()
        self._sending_bytes = 0
        self._wake.clear()
        self._flushed.set()
        if was_up:
            self._listener.on_lost()

    async def _write(self, connection: ClientConnection) -> None:
        """Send what was queued, a tick's messages in as few frames as possible; no message waits
        for more than one piece of a big one."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self._write_text(connection)
                for piece in self._outbox.take_binary():
                    await connection.send(piece)
                    await self._write_text(connection)
                if not self._has_unsent:
                    self._flushed.set()
        except ConnectionClosed:
            return  # the reader sees it too, and says why

    async def _write_text(self, connection: ClientConnection) -> None:
        while self._outbox.unsent_text_bytes:
            self._sending_bytes = self._outbox.unsent_text_bytes
            for frame in self._outbox.take_text():
                await connection.send(frame, text=True)
            self._sending_bytes = 0

    async def _read(self, connection: ClientConnection) -> _End:
        """Register, then take frames until the link ends."""
        try:
            async with asyncio.timeout(WELCOME_TIMEOUT_S) as welcome_due:
                hello = encode_request(_REGISTER_ID, self._listener.registration())
                await connection.send(hello, text=True)
                while True:
                    end = self._take(await connection.recv())
                    if end is not None:
                        return end
                    if self._is_up and welcome_due.when() is not None:
                        welcome_due.reschedule(None)
        except ConnectionClosed as closed:
            return _End(reason=str(closed))
        except TimeoutError:
            return _End(reason=f"no welcome within {WELCOME_TIMEOUT_S:g} s; is it a balancer?")

    def _take(self, frame: str | bytes) -> _End | None:
        """One frame's messages, each on its own; a value ends the link.

        Binary frames are pieces of a message that was too big for a text frame.
        """
        try:
            whole = frame if isinstance(frame, str) else self._inbox.feed(frame)
            messages = AGENT_RECEIVES.decode(whole, max_bytes=MAX_TRANSFER_BYTES) if whole else []
        except ProtocolError as error:
            self._complain(str(error))
            messages = []
        self._send_replies()
        for message in messages:
            end = self._take_message(message)
            if end is not None:
                return end
        return None

    def _send_replies(self) -> None:
        while self._inbox.replies:
            self.send(self._inbox.replies.popleft())

    def _take_message(self, message: Message | ProtocolError) -> _End | None:
        match message:
            case ProtocolError():
                self._complain(str(message))
                if message.call_id is not None:
                    self.send(encode_error(message.call_id, message.to_error_object()))
            case Response() | ErrorResponse() if not self._is_up and message.id == _REGISTER_ID:
                return self._registered(message)
            case Notification(params=Credit() as credit):
                self._outbox.on_credit(credit)
                self._wake.set()
            case Notification(params=AbortTransfer() as abort):
                self._outbox.on_abort(abort)
                self._wake.set()
            case Request() | Notification() if self._is_up:
                self._hand_over(message)
            case _:
                self._complain("an answer nobody waits for, or a call before the welcome")
        return None

    def _registered(self, answer: Response | ErrorResponse) -> _End | None:
        if isinstance(answer, ErrorResponse):
            refusal = answer.error
            return _End(
                reason=refusal.message,
                refusal=refusal,
                is_credential=_reason_of(refusal) == "not_entitled",
            )
        try:
            welcome = decode_result(answer.result, Welcome)
        except ProtocolError as error:
            return _End(reason=f"unusable welcome: {error}")
        if not OLDEST_PROTOCOL_VERSION <= welcome.protocol_version <= PROTOCOL_VERSION:
            return _End(reason=f"the balancer chose protocol {welcome.protocol_version}")
        self._is_up = self._was_ever_up = True
        self._listener.on_welcome(welcome)
        return None

    def _hand_over(self, message: Request | Notification) -> None:
        """The outermost edge of a message: a fault in handling it must not cost the link."""
        try:
            self._listener.on_message(message)
        except Exception:
            log.exception("message not handled", method=message.method)
            if isinstance(message, Request):
                error = ErrorObject(code=int(RpcCode.INTERNAL_ERROR), message="the agent failed")
                self.send(encode_error(message.id, error))

    def _complain(self, what: str) -> None:
        self._complaints += 1
        if self._complaints <= MAX_COMPLAINTS:
            log.warning("message of the balancer dropped", reason=what[:500])


def _hint(status: int, body: bytes) -> str:
    """What the operator may have got wrong, of an answer that refused the link."""
    return _NO_CERTIFICATE if _CERTIFICATE_CODE in body else _HINTS.get(status, "")


_CERTIFICATE_CODE = b'"client_certificate_required"'
_NO_CERTIFICATE = "; the balancer wants a client certificate: --client-certificate and --client-key"


_HINTS = {
    401: "; the balancer wants the token of an agent: --token-file or PADDLER_AGENT_TOKEN",
    403: "; this token is not of an agent, whose role is system",
    404: "; this is not a management port (8081 unless changed)",
}


def _reason_of(refusal: ErrorObject) -> object:
    """The balancer's word for it."""
    return refusal.data.get("reason") if isinstance(refusal.data, dict) else None


def longest_delay_s(failures: int, longest_s: float = LONGEST_DELAY_S) -> float:
    """What the jitter draws from after so many failures in a row: doubling, up to `longest_s`."""
    return float(min(longest_s, FIRST_DELAY_S * 2.0 ** min(failures, 10)))
