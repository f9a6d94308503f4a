"""One question to one agent: whom it was put to, how it fared, and whether an answer answers it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from msgspec import Struct

from balancer.dispatch.query_request import QueryRequest
from balancer.fleet.agent import Agent
from balancer.fleet.queries import Answer, TextAnswer, TextQuestion
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
        if isinstance(answer, Embeddings | ExportedSequence | ImportedSequence):
            raise AssertionError(f"an inquiry's question has no {type(answer).__name__}")
        self.keeper.on_answer(self, answer)

    def on_refused(self, error: ErrorObject) -> None:
        """Why it says nothing."""
        self.keeper.on_refused(self, error)

    def on_link_lost(self) -> None:
        """The agent is gone."""
        self.keeper.on_link_lost(self)


class Inquiry(QueryRequest[Answered]):
    """A question from its arrival to its end."""

    __slots__ = ("attempt", "question")

    def __init__(
        self,
        question: TextQuestion,
        *,
        ordinal: int,
        tenant: str,
        request_id: str,
        body_bytes: int,
        now_s: float,
    ) -> None:
        super().__init__(
            ordinal=ordinal,
            tenant=tenant,
            request_id=request_id,
            body_bytes=body_bytes,
            now_s=now_s,
        )
        self.question = question
        self.attempt: Attempt | None = None

    @property
    def queue(self) -> str:
        """The model's name as the request has it."""
        return self.question.model

    @property
    def agents_at_work(self) -> Sequence[Agent]:
        """Whom it was put to."""
        return () if self.attempt is None else (self.attempt.agent,)

    def finish(self, answer: TextAnswer, agent: Agent, *, now_s: float) -> None:
        """End it well."""
        model = agent.model
        self.done.set_result(
            Answered(
                answer=answer,
                model=self.queue or (model.name if model else ""),
                agent=agent.name,
                attempts=self.attempts,
                queue_ms=self.queue_ms,
                total_ms=self.age_ms(now_s),
            )
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
