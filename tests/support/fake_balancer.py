"""The balancer's end of the agent link, for tests of the agent: says what it is told to say and
remembers what it heard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, TypeVar

from msgspec import Struct
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from agent.settings import BalancerAddress
from protocol.codec import (
    BALANCER_RECEIVES,
    encode_error,
    encode_notification,
    encode_request,
    encode_result,
)
from protocol.errors import ProtocolError
from protocol.generation import ContentDelta, GenerationRequest, StepDelta
from protocol.jsonrpc import (
    CallId,
    ErrorObject,
    ErrorResponse,
    Message,
    Notification,
    Request,
    Response,
)
from protocol.to_agent import generate_tokens_call
from protocol.to_balancer import (
    Failed,
    Finished,
    Heartbeat,
    Register,
    Tokens,
    Welcome,
)
from protocol.transfers import Inbox

PATIENCE_S = 30.0
_S = TypeVar("_S", bound=Struct)


class FakeBalancer:
    """Listens on a free port. `refuse_with` refuses registrations; `heartbeat_ms` is what it asks
    for; every message of every link is in `heard`, garbage in `garbage`."""

    def __init__(self) -> None:
        self.heard: list[Message] = []
        self.garbage: list[ProtocolError] = []
        self.data: dict[int, bytes] = {}
        """What came for calls beside messages."""
        self._inbox = Inbox()
        self.frames = 0
        self.links = 0
        self.refuse_with: ErrorObject | None = None
        self.answers_registrations = True
        self.answer_with = b""
        """What is sent in place of a welcome, if anything; the link counts as up all the same."""
        self.reads_nothing = False
        """From the next welcome on."""
        self.heartbeat_ms = 60_000
        self._connection: ServerConnection | None = None
        self._news = asyncio.Event()
        self._ids = count(1)
        self._server: Server | None = None

    @property
    def address(self) -> BalancerAddress:
        """Where it listens."""
        assert self._server is not None
        host, port = next(iter(self._server.sockets)).getsockname()[:2]
        return BalancerAddress(host, port)

    @property
    def is_linked(self) -> bool:
        """Whether a registered link is open."""
        return self._connection is not None

    # --- saying ---

    async def call(self, request: GenerationRequest, **more: Any) -> int:
        """Send `generate_tokens`; its id."""
        call_id = next(self._ids)
        await self.request(call_id, request, **more)
        return call_id

    async def request(self, call_id: CallId, request: GenerationRequest, **more: Any) -> None:
        """Send `generate_tokens` under an id of the test's own."""
        facts = {"created": 1_700_000_000, "deadline_ms": None, "trace_id": "req_1", **more}
        await self.say(encode_request(call_id, generate_tokens_call(request, **facts)))

    async def ask(self, params: Struct) -> int:
        """Send any request; its id."""
        call_id = next(self._ids)
        await self.say(encode_request(call_id, params))
        return call_id

    async def notify(self, params: Struct) -> None:
        """Send a notification."""
        await self.say(encode_notification(params))

    async def say(self, frame: bytes | str) -> None:
        """Send a text frame, whatever is in it."""
        assert self._connection is not None
        await self._connection.send(frame, text=True)

    async def say_binary(self, frame: bytes) -> None:
        """Send a binary frame, whatever is in it."""
        assert self._connection is not None
        await self._connection.send(frame)

    def break_link(self) -> None:
        """Cut the connection without a word."""
        assert self._connection is not None
        self._connection.transport.abort()

    # --- hearing ---

    async def until(self, condition: Callable[[], object], what: str) -> Any:
        """The condition's first true value, looked at after every frame and link."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not (value := condition()):
                    self._news.clear()
                    await self._news.wait()
                return value
        except TimeoutError as error:
            raise AssertionError(f"still waiting for {what}; heard {self.heard}") from error

    def notifications(self, kind: type[_S]) -> list[_S]:
        """The notifications of a kind so far."""
        return [
            message.params
            for message in self.heard
            if isinstance(message, Notification) and isinstance(message.params, kind)
        ]

    def answer(self, call_id: CallId) -> Response | ErrorResponse | None:
        """The answer to a call, if it came."""
        for message in self.heard:
            if isinstance(message, Response | ErrorResponse) and message.id == call_id:
                return message
        return None

    async def answered(self, call_id: CallId) -> Response | ErrorResponse:
        """The answer to a call."""
        answer = await self.until(lambda: self.answer(call_id), f"the answer to {call_id}")
        assert isinstance(answer, Response | ErrorResponse)
        return answer

    async def finished(self, call_id: CallId) -> Finished:
        """A call's good end."""
        end = await self.ended(call_id)
        assert isinstance(end, Finished), end
        return end

    async def ended(self, call_id: CallId) -> Finished | Failed:
        """A call's end."""

        def find() -> Finished | Failed | None:
            finished = (e for e in self.notifications(Finished) if e.call == call_id)
            failed = (e for e in self.notifications(Failed) if e.call == call_id)
            return next(finished, None) or next(failed, None)

        end = await self.until(find, f"the end of call {call_id}")
        assert isinstance(end, Finished | Failed)
        return end

    def deltas(self, call_id: CallId) -> list[StepDelta]:
        """What a call has emitted, step by step."""
        return [
            delta
            for tokens in self.notifications(Tokens)
            for call, delta in zip(tokens.calls, tokens.deltas, strict=True)
            if call == call_id
        ]

    def text(self, call_id: CallId) -> str:
        """A call's content so far."""
        parts: list[str] = []
        for delta in self.deltas(call_id):
            typed = (ContentDelta(delta),) if isinstance(delta, str) else delta
            parts += [part.text for part in typed if isinstance(part, ContentDelta)]
        return "".join(parts)

    def token_ids(self, call_id: CallId) -> list[int]:
        """A call's tokens so far."""
        return [
            token
            for tokens in self.notifications(Tokens)
            for call, ids in zip(tokens.calls, tokens.token_ids, strict=True)
            if call == call_id
            for token in ids
        ]

    def last_heartbeat(self) -> Heartbeat | None:
        """The agent's newest status."""
        beats = self.notifications(Heartbeat)
        return beats[-1] if beats else None

    async def registered(self, links: int = 1) -> Register:
        """The registration of the n-th link."""
        await self.until(lambda: self.links >= links and self.is_linked, f"link {links}")
        registers = [
            message.params
            for message in self.heard
            if isinstance(message, Request) and isinstance(message.params, Register)
        ]
        return registers[-1]

    async def has_slots(self, slots: int) -> Heartbeat:
        """A heartbeat that announces so many slots, as the newest status."""

        def find() -> Heartbeat | None:
            beat = self.last_heartbeat()
            return beat if beat is not None and beat.status.slots_total == slots else None

        beat = await self.until(find, f"a heartbeat with {slots} slots")
        assert isinstance(beat, Heartbeat)
        return beat

    # --- inside ---

    async def _serve(self, connection: ServerConnection) -> None:
        try:
            async for frame in connection:
                self.frames += 1
                whole = frame if isinstance(frame, str) else await self._whole(connection, frame)
                for message in BALANCER_RECEIVES.decode(whole) if whole else ():
                    await self._take(connection, message)
                self._news.set()
                if self.reads_nothing and self._connection is connection:
                    await connection.wait_closed()
        except ConnectionClosed:
            pass
        finally:
            if self._connection is connection:
                self._connection = None
            self._news.set()

    async def _whole(self, connection: ServerConnection, piece: bytes) -> bytes | None:
        """The message that the piece completes; a call's data goes to `data`."""
        whole = self._inbox.feed(piece)
        self.data.update(self._inbox.data)
        while self._inbox.replies:
            await connection.send(self._inbox.replies.popleft(), text=True)
        return whole

    async def _take(self, connection: ServerConnection, message: Message | ProtocolError) -> None:
        if isinstance(message, ProtocolError):
            self.garbage.append(message)
            return
        self.heard.append(message)
        if isinstance(message, Request) and self.answers_registrations:
            await self._register(connection, message)

    async def _register(self, connection: ServerConnection, request: Request) -> None:
        if self.refuse_with is not None:
            await connection.send(encode_error(request.id, self.refuse_with), text=True)
            await connection.close()
            return
        welcome = Welcome(
            protocol_version=1, heartbeat_interval_ms=self.heartbeat_ms, heartbeat_misses=3
        )
        self._connection = connection
        self.links += 1
        answer = self.answer_with or encode_result(request.id, welcome)
        await connection.send(answer, text=True)


@asynccontextmanager
async def fake_balancer() -> AsyncIterator[FakeBalancer]:
    """A fake balancer that listens; closed with the test."""
    balancer = FakeBalancer()
    async with serve(balancer._serve, "127.0.0.1", 0, compression=None, close_timeout=1) as server:
        balancer._server = server
        yield balancer
        if balancer.reads_nothing:
            for connection in server.connections:
                connection.transport.abort()  # closing would wait for what is read
