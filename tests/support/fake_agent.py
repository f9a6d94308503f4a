"""An agent without an engine: speaks the link's protocol over a real socket, by a script.

By default it answers every call with the pieces of `Script.pieces`, one a step. A call can also be
held and played by hand, and each of an agent's vices can be switched on.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterator
from itertools import count
from types import TracebackType
from typing import Any

import msgspec
from msgspec import UNSET, Struct
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from balancer.fleet.queries import TextAnswer, TextQuestion
from protocol.agent_status import AgentStatus
from protocol.codec import (
    AGENT_RECEIVES,
    encode_error,
    encode_notification,
    encode_request,
    encode_result,
    frames,
)
from protocol.generation import FinishReason, StepDelta, Timings, TokenLogprob, Usage
from protocol.jsonrpc import CallId, ErrorObject, ErrorResponse, Notification, Request, Response
from protocol.models import ServedModel
from protocol.refusals import RefusalCode
from protocol.to_agent import (
    Cancel,
    Committed,
    Continue,
    DescribeModel,
    Detokenize,
    Embed,
    GenerateTokens,
    Pause,
    Render,
    Rerank,
    Tokenize,
)
from protocol.to_balancer import Failed, Finished, Heartbeat, Register, Tokens
from tests.support.toy_answers import toy_answer, toy_vectors

PROMPT_TOKENS = 7
CACHED_TOKENS = 2
QUERIES = 8


class Script(Struct, frozen=True, kw_only=True):
    """How every call goes. `is_held` leaves calls to the test; `gap_s` is the time between steps.

    `pieces_at_once` are sent in one tick, as an engine that was far ahead would.
    """

    pieces: tuple[StepDelta, ...] = ("Hello", ", ", "world")
    logprobs: tuple[tuple[TokenLogprob, ...], ...] = ()
    finish_reason: FinishReason = "stop"
    gap_s: float = 0.0
    pieces_at_once: int = 1
    is_held: bool = False
    prompt_tokens: int = PROMPT_TOKENS
    refuse_with: RefusalCode | None = None
    refuse_about: str = ""
    """The parameter that a refusal names, as agents name it."""
    fail_with: RefusalCode | None = None
    ignores_cancel: bool = False
    ignores_pause: bool = False


class Call:
    """One call as the agent sees it."""

    def __init__(self, call_id: int, request: GenerateTokens) -> None:
        self.id = call_id
        self.request = request
        self.sent = len(request.resume.token_ids) if request.resume else 0
        """Tokens of the text, those of earlier agents among them."""
        self.is_cancelled = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.pauses = 0


class FakeAgent:
    """Use as an async context manager; leaving it closes the link."""

    def __init__(
        self,
        port: int,
        *,
        name: str = "one",
        slots: int = 4,
        model: str | ServedModel | None = "demo",
        adapters: tuple[str, ...] = (),
        epoch: str = "e1",
        script: Script | None = None,
        heartbeat_s: float | None = 0.5,
        token: str = "",
        trust: ssl.SSLContext | None = None,
    ) -> None:
        """`trust`: it comes over TLS, and takes these certificates."""
        self._trust = trust
        self._url = f"{'wss' if trust else 'ws'}://127.0.0.1:{port}/agents/connect"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.name = name
        self.slots = slots
        self.script = script or Script()
        self._model = (
            ServedModel(name=model, context_tokens=2048, adapters=adapters)
            if isinstance(model, str)
            else model
        )
        self._epoch = epoch
        self._heartbeat_s = heartbeat_s
        self._sequence = count(1)
        self._socket: ClientConnection | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.calls: dict[CallId, Call] = {}
        self._has_calls = asyncio.Condition()
        self.started: list[GenerateTokens] = []
        self.asked: list[TextQuestion] = []
        """Questions, which are answered at once, as a toy model would."""
        self.most_at_once = 0
        self.refusal: ErrorObject | None = None
        self.is_closed = asyncio.Event()

    async def __aenter__(self) -> FakeAgent:
        await self.open()
        await self.register()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect, without a word."""
        self._socket = await connect(
            self._url,
            compression=None,
            max_size=None,
            close_timeout=1,
            additional_headers=self._headers,
            ssl=self._trust,
            ping_interval=None,  # its payloads are drawn from dice that Hypothesis watches
        )

    async def register(self) -> None:
        """Introduce itself; `refusal` says whether the balancer took it."""
        await self.send_raw(encode_request(1, self.introduction()).decode())
        answer, *calls = AGENT_RECEIVES.decode(await self.socket.recv())
        if isinstance(answer, ErrorResponse):
            self.refusal = answer.error
            return
        assert isinstance(answer, Response)
        for call in calls:
            await self._take(call)
        self._start(self._read())
        if self._heartbeat_s is not None:
            self._start(self._beat(self._heartbeat_s))

    async def close(self) -> None:
        """Leave as a program that ends does."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._socket is not None:
            await self._socket.close()

    def kill(self) -> None:
        """Vanish as a killed process does: the socket is gone, nothing was said."""
        for task in tuple(self._tasks):
            task.cancel()
        self.socket.transport.abort()

    @property
    def socket(self) -> ClientConnection:
        """The open socket."""
        assert self._socket is not None
        return self._socket

    async def send_raw(self, frame: str | bytes) -> None:
        """Any frame, sensible or not."""
        await self.socket.send(frame)

    async def call(self, index: int = -1) -> Call:
        """A call that is running now; waits for one."""
        async with self._has_calls:
            await self._has_calls.wait_for(lambda: bool(self.calls))
        return list(self.calls.values())[index]

    async def tokens(
        self, call: Call, delta: StepDelta, logprobs: tuple[TokenLogprob, ...] = ()
    ) -> None:
        """One step of one call."""
        await self._send(
            Tokens(
                calls=(call.id,),
                token_ids=((call.sent + 10,),),
                deltas=(delta,),
                logprobs=(logprobs,) if logprobs else (),
            )
        )
        call.sent += 1

    async def finish(self, call: Call, reason: FinishReason = "stop") -> None:
        """End a call well; its slot is free."""
        self.calls.pop(call.id, None)
        prompt, cached = self.prompt_tokens(call.request)
        usage = Usage(prompt_tokens=prompt, completion_tokens=call.sent + 1, cached_tokens=cached)
        await self._send(
            Finished(call=call.id, finish_reason=reason, usage=usage, timings=self.timings(call))
        )

    async def fail(self, call: Call, code: RefusalCode) -> None:
        """End a call badly; its slot is free."""
        self.calls.pop(call.id, None)
        error = ErrorObject(code=int(code), message="by the test")
        await self._send(Failed(call=call.id, error=error))

    def introduction(self) -> Register:
        """What it says of itself first."""
        return Register(
            name=self.name,
            epoch=self._epoch,
            protocol_min=1,
            protocol_max=1,
            model=self._model,
            resume_key="same",
            status=self.status(),
        )

    def prompt_tokens(self, request: GenerateTokens) -> tuple[int, int]:
        """How many a prompt has, and how many of them were cached."""
        del request
        return self.script.prompt_tokens, CACHED_TOKENS

    def timings(self, call: Call) -> Timings:
        """How long its parts took."""
        del call
        return Timings(prefill_ms=1.0, decode_ms=2.0)

    def status(self) -> AgentStatus:
        """What it would say of itself now."""
        return AgentStatus(
            seq=next(self._sequence),
            capacity_version=1,
            slots_total=self.slots if self._model else 0,
            queries_total=QUERIES if self._model else 0,
            running=tuple(self.calls),
        )

    async def heartbeat(self) -> None:
        """One status message."""
        await self._send(Heartbeat(status=self.status(), model=self._model, resume_key="same"))

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for frame in self.socket:
                for message in AGENT_RECEIVES.decode(frame):
                    await self._take(message)
        self.is_closed.set()

    async def _take(self, message: Any) -> None:
        match message:
            case Request(id=call_id, params=GenerateTokens() as request):
                assert isinstance(call_id, int)
                await self._accept(Call(call_id, request))
            case Request(
                params=Embed()
                | Rerank()
                | Tokenize()
                | Detokenize()
                | Render()
                | DescribeModel() as question
            ):
                await self.send_raw(self._answer_to(message.id, question).decode())
            case Notification(params=Cancel(call=call_id)):
                if (call := self.calls.get(call_id)) and not self.script.ignores_cancel:
                    call.is_cancelled.set()
                    call.may_go_on.set()
                    if self.script.is_held:
                        await self.finish(call, "cancelled")
            case Notification(params=Pause(call=call_id)):
                if (call := self.calls.get(call_id)) and not self.script.ignores_pause:
                    call.pauses += 1
                    call.may_go_on.clear()
            case Notification(params=Continue(call=call_id)):
                if call := self.calls.get(call_id):
                    call.may_go_on.set()

    def _answer_to(self, call_id: CallId, question: TextQuestion | Embed) -> bytes:
        if not isinstance(question, Embed):
            self.asked.append(question)
        if self.script.refuse_with is None:
            if isinstance(question, Embed):
                return encode_result(call_id, toy_vectors(question))
            return encode_result(call_id, self.answer(question))
        refusal = ErrorObject(code=int(self.script.refuse_with), message="by the script")
        return encode_error(call_id, refusal)

    def answer(self, question: TextQuestion) -> TextAnswer:
        """To any question."""
        return toy_answer(question)

    async def _accept(self, call: Call) -> None:
        self.started.append(call.request)
        if self.script.refuse_with is not None:
            about = self.script.refuse_about
            refusal = ErrorObject(
                code=int(self.script.refuse_with),
                message="by the script",
                data={"param": about} if about else UNSET,
            )
            await self.send_raw(encode_error(call.id, refusal).decode())
            return
        self.calls[call.id] = call
        self.most_at_once = max(self.most_at_once, len(self.calls))
        async with self._has_calls:
            self._has_calls.notify_all()
        prompt, cached = self.prompt_tokens(call.request)
        committed = Committed(prompt_tokens=prompt, max_tokens=2000, cached_tokens=cached)
        await self.send_raw(encode_result(call.id, committed).decode())
        if not self.script.is_held:
            self._start(self.play(call))

    async def play(self, call: Call) -> None:
        """Answer by the script."""
        script = self.script
        with contextlib.suppress(ConnectionClosed):
            for index in range(call.sent, len(script.pieces), script.pieces_at_once):
                await call.may_go_on.wait()
                if call.is_cancelled.is_set():
                    break
                steps = range(index, min(index + script.pieces_at_once, len(script.pieces)))
                messages = [self._step(call, step) for step in steps]
                for frame in frames(messages):
                    await self.send_raw(frame.decode())
                await asyncio.sleep(script.gap_s)
            if script.fail_with is not None:
                self.calls.pop(call.id, None)
                error = ErrorObject(code=int(script.fail_with), message="by the script")
                await self._send(Failed(call=call.id, error=error))
                return
            is_cancelled = call.is_cancelled.is_set()
            await self.finish(call, "cancelled" if is_cancelled else script.finish_reason)

    def _step(self, call: Call, index: int) -> bytes:
        script = self.script
        call.sent += 1
        wanted = call.request.top_logprobs is not None and script.logprobs
        logprobs = (script.logprobs[index],) if wanted else ()
        if call.request.prompt_logprobs and not script.logprobs and index == 0:
            told = PROMPT_TOKENS + len(script.pieces) + 1  # of the end, too
            logprobs = ((TokenLogprob(1, "x", -1.0),) * told,)
        return encode_notification(
            Tokens(
                calls=(call.id,),
                token_ids=((index + 10,),),
                deltas=(script.pieces[index],),
                logprobs=logprobs,
            )
        )

    async def _beat(self, interval_s: float) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await asyncio.sleep(interval_s)
                await self.heartbeat()

    async def _send(self, params: Struct) -> None:
        await self.send_raw(encode_notification(params).decode())

    def _start(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def long_pieces(pieces: int, chars: int) -> tuple[str, ...]:
    """Text for answers that fill buffers: every piece says which one it is."""
    return tuple(f"{index:06d}".ljust(chars, ".") for index in range(pieces))


def events_of(body: bytes) -> Iterator[Any]:
    """The data of server-sent events: decoded JSON, or the string [DONE]."""
    for block in body.split(b"\n\n"):
        if block.startswith(b"data: "):
            data = block[6:]
            yield "[DONE]" if data == b"[DONE]" else msgspec.json.decode(data)
