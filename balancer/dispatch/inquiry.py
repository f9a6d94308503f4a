"""One question to one agent: whom it was put to, how it fared, and whether an answer answers it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from msgspec import Struct

from balancer.dispatch.listing import RequestSnapshot
from balancer.errors import BalancerError
from balancer.fleet.agent import Agent
from balancer.fleet.queries import Answer, TextAnswer, TextQuestion
from balancer.policy.failover import Trail
from protocol.embeddings import Embeddings, Scores, TokenIds
from protocol.jsonrpc import ErrorObject, RpcCode
from protocol.rendering import Rendered
from protocol.to_agent import ExportedSequence, ImportedSequence, Render, Tokenize

_INCOMPLETE = ErrorObject(
    code=int(RpcCode.INTERNAL_ERROR), message="its answer lacks what was asked for"
)


class Answered(Struct, frozen=True, kw_only=True):
    """An answer of the kind that belongs to the question, whole. `attempts` is
    1 more than the agents that failed it."""

    answer: TextAnswer
    model: str
    agent: str
    attempts: int
    queue_ms: float
    total_ms: float


class AttemptKeeper(Protocol):
    """Who hears what becomes of an attempt."""

    def on_answer(self, attempt: Attempt, answer: TextAnswer) -> None: ...

    def on_refused(self, attempt: Attempt, error: ErrorObject) -> None: ...

    def on_link_lost(self, attempt: Attempt) -> None: ...


@dataclass(slots=True, eq=False)
class Attempt:
    """A question on its way to an agent and back. Satisfies the link's `AnswerHandler`."""

    inquiry: Inquiry
    agent: Agent
    keeper: AttemptKeeper
    started_s: float
    call_id: int = 0
    timer: asyncio.TimerHandle | None = None

    def on_answer(self, answer: Answer) -> None:
        """What the agent says."""
        assert not isinstance(answer, Embeddings | ExportedSequence | ImportedSequence)
        self.keeper.on_answer(self, answer)

    def on_refused(self, error: ErrorObject) -> None:
        """Why it says nothing."""
        self.keeper.on_refused(self, error)

    def on_link_lost(self) -> None:
        """The agent is gone."""
        self.keeper.on_link_lost(self)


@dataclass(slots=True, eq=False, kw_only=True)
class Inquiry:
    """A question from its arrival to its end. `done` becomes its answer or its error. Satisfies the
    waiting room's `Waiter`."""

    question: TextQuestion
    ordinal: int
    tenant: str
    request_id: str
    body_bytes: int
    arrived_s: float
    done: asyncio.Future[Answered]
    waits_since_s: float = 0.0
    started_s: float | None = None
    attempt: Attempt | None = None
    expiry: asyncio.TimerHandle | None = None
    trail: Trail = field(default_factory=Trail)
    avoided: set[Agent] = field(default_factory=set)
    """Those that failed it: others are preferred."""

    @property
    def rank(self) -> tuple[int, int]:
        """First come, first served, also where it comes back."""
        return 1, self.ordinal

    @property
    def queue(self) -> str:
        """The model's name as the request has it."""
        return self.question.model

    @property
    def length(self) -> int:
        """It generates nothing."""
        return 0

    def left_s(self, now_s: float) -> float | None:  # noqa: ARG002 (the contract)
        """It has no deadline of its own."""
        return None

    def fail(self, error: BalancerError) -> None:
        """End it with an error, unless it is over."""
        if not self.done.done():
            self.done.set_exception(error)

    def finish(self, answer: TextAnswer, agent: Agent, *, now_s: float) -> None:
        """End it well."""
        started_s = self.arrived_s if self.started_s is None else self.started_s
        model = agent.model
        self.done.set_result(
            Answered(
                answer=answer,
                model=self.queue or (model.name if model else ""),
                agent=agent.name,
                attempts=1 + self.trail.moves,
                queue_ms=1000 * (started_s - self.arrived_s),
                total_ms=1000 * (now_s - self.arrived_s),
            )
        )

    def snapshot(self, *, now_s: float, position: int | None = None) -> RequestSnapshot:
        """The request as operators see it."""
        return RequestSnapshot(
            id=self.request_id,
            model=self.queue,
            tenant=self.tenant,
            state="waiting" if self.attempt is None else "running",
            agent=None if self.attempt is None else self.attempt.agent.name,
            attempts=1 + self.trail.moves if self.started_s is not None else 0,
            age_ms=round(1000 * (now_s - self.arrived_s), 3),
            completion_tokens=0,
            position=position,
        )


def problem_with(question: TextQuestion, answer: TextAnswer) -> ErrorObject | None:
    """Why an answer is none, as if the question had been refused for it; None: it is one."""
    match question, answer:
        case _, Scores(errors=(_, *_) as errors):
            first = min(errors, key=lambda error: error.index)
            param = f"documents[{first.index}]"
            return ErrorObject(code=first.code, message=first.message, data={"param": param})
        case _, Scores(scores=scores) if None in scores:
            return _INCOMPLETE
        case Tokenize(with_pieces=True), TokenIds(token_ids=ids, pieces=pieces):
            return None if len(pieces) == len(ids) else _INCOMPLETE
        case Render(with_count=True), Rendered(prompt_tokens=None):
            return _INCOMPLETE
        case _:
            return None
