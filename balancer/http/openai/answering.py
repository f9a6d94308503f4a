"""Carries one generation from the dispatcher to its client: as a stream of events or as JSON.

Both generation routes share this; they differ in the shapes that they hand in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

import msgspec
from aiohttp.web import StreamResponse
from msgspec import Struct

from balancer.dispatch.sink import Flow, Outcome
from balancer.http.answers import error_object, json_answer, shown_error
from balancer.http.exchange import Exchange, Wiring
from balancer.http.openai.extras import AnswerHead
from balancer.http.replay import Replay
from balancer.http.sse import EventStream
from protocol.generation import GenerationRequest, StepDelta, TokenLogprob
from protocol.to_agent import Committed


class Chunks(Protocol):
    """Turns output into server-sent events."""

    def opening(self) -> bytes: ...

    def tokens(self, delta: StepDelta, logprobs: tuple[TokenLogprob, ...]) -> bytes: ...

    def closing(self, outcome: Outcome) -> bytes: ...


class Gathered(Protocol):
    """Gathers output for one body."""

    def take(self, delta: StepDelta, logprobs: tuple[TokenLogprob, ...]) -> None: ...

    def body(self, outcome: Outcome) -> bytes: ...


class Generation(Struct, frozen=True, kw_only=True):
    """What is asked of the dispatcher, and how the answer is to look."""

    request: GenerationRequest
    id_prefix: str
    body_bytes: int
    timeout_s: float | None
    is_stream: bool
    chunks: Callable[[AnswerHead], Chunks]
    gathered: Callable[[AnswerHead], Gathered]


async def answer(exchange: Exchange, wiring: Wiring, generation: Generation) -> StreamResponse:
    """Run the generation and answer. Raises `BalancerError` while a real status is possible."""
    if generation.is_stream:
        return await _answer_stream(exchange, wiring, generation)
    sink = _GatheringSink(_Course(exchange, wiring, generation))
    outcome = await _generate(exchange, wiring, generation, sink)
    sink.course.agent = outcome.agent  # another may have begun it
    return json_answer(exchange, sink.body(outcome), headers=sink.course.headers())


async def _answer_stream(
    exchange: Exchange, wiring: Wiring, generation: Generation
) -> StreamResponse:
    if exchange.request.headers.get("X-Paddler-Resumable") == "1":
        return await _answer_resumable(exchange, wiring, generation)
    course = _Course(exchange, wiring, generation)
    stream = EventStream(
        exchange, settings=wiring.settings, metrics=wiring.metrics, head=course.headers
    )
    sink = _StreamingSink(course, stream)
    try:
        outcome = await _generate(exchange, wiring, generation, sink)
        return stream.finish(sink.closing(outcome))
    except Exception as error:
        if not stream.is_open:
            raise
        return stream.finish(_error_event(exchange, error))
    finally:
        stream.close()


def _error_event(exchange: Exchange, error: Exception) -> bytes:
    shown = shown_error(exchange, error)
    event = msgspec.json.encode({"error": error_object(shown, exchange.id)})
    return b"data: " + event + b"\n\n"


async def _answer_resumable(
    exchange: Exchange, wiring: Wiring, generation: Generation
) -> StreamResponse:
    """As a stream, but the generation belongs to its replay, and outlives the connection."""
    course = _Course(exchange, wiring, generation)
    stream = EventStream(
        exchange, settings=wiring.settings, metrics=wiring.metrics, head=course.headers
    )
    replay = wiring.replays.open(exchange.id, exchange.principal.tenant)
    replay.headers = course.headers
    sink = _StreamingSink(course, replay)

    async def fill() -> None:
        try:
            outcome = await _generate(exchange, wiring, generation, sink)
            replay.send(sink.closing(outcome))
        except Exception as error:  # noqa: BLE001 (a task's outermost edge: readers are told)
            if sink.has_begun:
                replay.send(_error_event(exchange, error))
            else:
                replay.error = error

    replay.run(fill())
    return await read_replay(exchange, replay, stream)


async def read_replay(
    exchange: Exchange, replay: Replay, stream: EventStream, *, start: int = 0
) -> StreamResponse:
    """Write a stream's events from one on, until its end. Raises as `answer` does."""
    try:
        await replay.read_by(stream, start=start)
        if replay.error is None:
            stream.open()
            return stream.finish(b"")
        if not stream.is_open:
            raise replay.error
        return stream.finish(_error_event(exchange, replay.error))
    finally:
        stream.close()


async def _generate(
    exchange: Exchange, wiring: Wiring, generation: Generation, sink: _Sink
) -> Outcome:
    outcome = await wiring.dispatcher.generate(
        generation.request,
        exchange.principal,
        sink,
        request_id=exchange.id,
        timeout_s=generation.timeout_s,
        body_bytes=generation.body_bytes,
    )
    exchange.facts.update(
        agent=outcome.agent,
        attempts=outcome.attempts,
        queue_ms=round(outcome.queue_ms, 3),
        ttft_ms=round(outcome.ttft_ms, 3),
        prompt_tokens=outcome.usage.prompt_tokens,
        completion_tokens=outcome.usage.completion_tokens,
        finish_reason=outcome.finish_reason,
    )
    return outcome


class _Course:
    """How far a generation is, as its answer's headers and head say."""

    def __init__(self, exchange: Exchange, wiring: Wiring, generation: Generation) -> None:
        self._exchange = exchange
        self._wiring = wiring
        self.generation = generation
        self.flow: Flow | None = None
        self.agent = ""

    def headers(self) -> dict[str, str]:
        """Who works on it, as far as that is known."""
        if self.flow is None or not self.agent:
            return {}
        return {
            "X-Paddler-Agent": self.agent,
            "X-Paddler-Queue-Ms": f"{self.flow.queue_ms:.3f}",
            "X-Paddler-Attempts": str(self.flow.attempts),
        }

    def head(self) -> AnswerHead:
        """Without a model in the request, the name of the only one that is served."""
        exchange = self._exchange
        model = self.generation.request.model
        if not model:
            served = self._wiring.roster.served_models()
            model = served[0].name if served else ""
        return AnswerHead(
            id=self.generation.id_prefix + exchange.id.removeprefix("req_"),
            created=exchange.created,
            model=model,
            request_id=exchange.id,
        )


class _Sink(ABC):
    """What both sinks have in common."""

    def __init__(self, course: _Course) -> None:
        self.course = course

    def attach(self, flow: Flow) -> None:
        """The handle on the generation."""
        self.course.flow = flow

    def on_committed(self, agent: str, committed: Committed) -> None:  # noqa: ARG002 (the contract)
        """An agent works on it."""
        self.course.agent = agent

    @abstractmethod
    def on_tokens(
        self,
        token_ids: tuple[int, ...],
        delta: StepDelta,
        logprobs: tuple[TokenLogprob, ...],
    ) -> None:
        """One step's output."""


class _StreamingSink(_Sink):
    """Every step goes out as it comes."""

    def __init__(self, course: _Course, stream: EventStream | Replay) -> None:
        super().__init__(course)
        self._stream = stream
        self._chunks: Chunks | None = None

    @property
    def has_begun(self) -> bool:
        """Whether an event was sent."""
        return self._chunks is not None

    def attach(self, flow: Flow) -> None:
        """The stream pauses and drops the generation by it."""
        super().attach(flow)
        self._stream.attach(flow)

    def on_tokens(
        self,
        token_ids: tuple[int, ...],  # noqa: ARG002 (the contract)
        delta: StepDelta,
        logprobs: tuple[TokenLogprob, ...],
    ) -> None:
        """The first step opens the stream."""
        chunks = self._chunks
        if chunks is None:
            chunks = self._open()
        self._stream.send(chunks.tokens(delta, logprobs))

    def closing(self, outcome: Outcome) -> bytes:
        """The stream's last events."""
        chunks = self._chunks or self._open()
        return chunks.closing(outcome)

    def _open(self) -> Chunks:
        chunks = self._chunks = self.course.generation.chunks(self.course.head())
        self._stream.send(chunks.opening())
        return chunks


class _GatheringSink(_Sink):
    """Everything is kept until the end; what an answer can hold is bounded by its tokens."""

    def __init__(self, course: _Course) -> None:
        super().__init__(course)
        self._gathered: Gathered | None = None

    def on_tokens(
        self,
        token_ids: tuple[int, ...],  # noqa: ARG002 (the contract)
        delta: StepDelta,
        logprobs: tuple[TokenLogprob, ...],
    ) -> None:
        """Keep it."""
        self._gather().take(delta, logprobs)

    def body(self, outcome: Outcome) -> bytes:
        """The answer."""
        return self._gather().body(outcome)

    def _gather(self) -> Gathered:
        if self._gathered is None:
            self._gathered = self.course.generation.gathered(self.course.head())
        return self._gathered
