"""Where generations' output goes: every step to a stream as it comes, or all of it into a body.

One sink a choice; what the choices of a request share is its `Course`.
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import msgspec

from balancer.dispatch.choices import Answers, Flows
from balancer.dispatch.sink import Flow, Outcome
from balancer.http.exchange import Exchange, Wiring
from balancer.http.replay import Replay
from balancer.http.shape import AnswerHead, Chunks, Generation
from balancer.http.sse import EventStream
from balancer.policy.choices import likeliest
from protocol.generation import StepDelta, TokenLogprob
from protocol.to_agent import Committed


class Course:
    """How far a request is, as its answer's headers and head say."""

    __slots__ = (
        "_exchange",
        "_wiring",
        "agent",
        "cached_tokens",
        "flows",
        "generation",
        "prompt_tokens",
    )

    def __init__(self, exchange: Exchange, wiring: Wiring, generation: Generation) -> None:
        self._exchange = exchange
        self._wiring = wiring
        self.generation = generation
        self.flows = Flows()
        self.agent = ""
        self.prompt_tokens = 0
        self.cached_tokens = 0

    def headers(self) -> dict[str, str]:
        """The family's own, and who works on it, as far as that is known."""
        headers = self.generation.headers
        if not self.agent:
            return headers
        return {
            **headers,
            "X-Paddler-Agent": self.agent,
            "X-Paddler-Queue-Ms": f"{self.flows.queue_ms:.3f}",
            "X-Paddler-Attempts": str(self.flows.attempts),
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
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
        )


class CourseSink(ABC):
    """What both sinks have in common."""

    __slots__ = ("course",)

    def __init__(self, course: Course) -> None:
        self.course = course

    def attach(self, flow: Flow) -> None:
        """The handle on the generation."""
        self.course.flows.add(flow)

    def on_committed(self, agent: str, committed: Committed) -> None:
        """An agent works on it; the first one is shown."""
        self.course.agent = self.course.agent or agent
        self.course.prompt_tokens = committed.prompt_tokens
        self.course.cached_tokens = committed.cached_tokens

    @abstractmethod
    def on_tokens(
        self,
        token_ids: tuple[int, ...],
        delta: StepDelta,
        logprobs: tuple[TokenLogprob, ...],
    ) -> None:
        """One step's output."""

    @abstractmethod
    def end(self, outcome: Outcome) -> None:
        """It is over, and others go on."""


class StreamingSink(CourseSink):
    """Every step goes out as it comes."""

    __slots__ = ("_chunks", "_index", "_stream")

    def __init__(self, course: Course, stream: EventStream | Replay, index: int) -> None:
        super().__init__(course)
        self._stream = stream
        self._index = index
        self._chunks: Chunks | None = None

    @property
    def has_begun(self) -> bool:
        """Whether an event was sent."""
        return self._chunks is not None

    def attach(self, flow: Flow) -> None:
        """The stream pauses and drops all generations at once."""
        super().attach(flow)
        self._stream.attach(self.course.flows)

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

    def end(self, outcome: Outcome) -> None:
        """It is over, and others go on."""
        chunks = self._chunks or self._open()
        self._stream.send(chunks.ended(outcome))

    def closing(self, outcome: Outcome, whole: Outcome) -> bytes:
        """The stream's last events."""
        chunks = self._chunks or self._open()
        return chunks.closing(outcome, whole)

    def _open(self) -> Chunks:
        course = self.course
        chunks = self._chunks = course.generation.chunks(course.head(), self._index)
        self._stream.send(chunks.opening())
        return chunks


class GatheringSink(CourseSink):
    """Everything is kept until the end; what an answer can hold is bounded by its tokens."""

    def __init__(self, course: Course) -> None:
        super().__init__(course)
        self.gathered = course.generation.gathered()
        self._logprobs = 0.0
        self._tokens = 0

    @property
    def mean_logprob(self) -> float:
        """Of its tokens, as far as they came with one; of none, less than of any."""
        return self._logprobs / self._tokens if self._tokens else -math.inf

    def on_tokens(
        self,
        token_ids: tuple[int, ...],  # noqa: ARG002 (the contract)
        delta: StepDelta,
        logprobs: tuple[TokenLogprob, ...],
    ) -> None:
        """Keep it."""
        self.gathered.take(delta, logprobs)
        for token in logprobs:
            self._logprobs += token.logprob
            self._tokens += 1

    def end(self, outcome: Outcome) -> None:
        """All are told at once, at the end."""


async def gathered_body(course: Course, sinks: Sequence[GatheringSink], answers: Answers) -> bytes:
    """The answer of all choices. They are encoded one by one, so that other requests come between:
    one with many log probabilities takes its time."""
    choices: list[msgspec.Raw] = []
    for index, made in enumerate(_shown(course.generation, sinks)):
        if index:
            await asyncio.sleep(0)
        choice = sinks[made].gathered.choice(index, answers.outcomes[made])
        choices.append(msgspec.Raw(msgspec.json.encode(choice)))
    return course.generation.whole(course.head(), choices, answers.whole)


def _shown(generation: Generation, sinks: Sequence[GatheringSink]) -> Iterator[int]:
    """Which of those that were made are in the answer, in its order: prompt by prompt, the
    likeliest of each first where not all are."""
    made, shown = generation.made_of_each, generation.choices
    if made == shown:
        yield from range(len(sinks))
        return
    for start in range(0, len(sinks), made):
        means = [sink.mean_logprob for sink in sinks[start : start + made]]
        yield from (start + index for index in likeliest(means, shown))
