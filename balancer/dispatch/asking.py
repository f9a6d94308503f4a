"""Questions that one agent answers in one piece: scores, a text's ids, ids' text, a chat's prompt.

They take no slot. Each is put to the least loaded agent that has room for a query, and waits its
turn where nobody has room.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

import structlog
from msgspec import structs

from balancer.dispatch.admission import ANY_MODEL, only_generates
from balancer.dispatch.inquiry import Answered, Attempt, Inquiry, problem_with
from balancer.dispatch.query_dispatcher import QueryDispatcher
from balancer.dispatch.query_fleet import QueryCrew
from balancer.errors import InvalidRequest, RequestTooLarge
from balancer.fleet.agent import Agent
from balancer.fleet.queries import TextAnswer, TextQuestion
from balancer.observability.tallies import Tally
from balancer.policy.failover import Breakage
from balancer.policy.identity.principal import Principal
from protocol.embeddings import Scores
from protocol.errors import FrameTooLarge
from protocol.to_agent import Rerank

log = structlog.get_logger(__name__)


class Asker(QueryDispatcher[Inquiry, Attempt]):
    """Puts questions to the roster's agents. They wait in the order of their coming: nobody is
    charged for one, as they are short."""

    async def ask(
        self,
        question: TextQuestion,
        principal: Principal,
        *,
        request_id: str,
        body_bytes: int = 0,
        on_left: Callable[[], None] = lambda: None,
    ) -> Answered:
        """The answer; `body_bytes` counts against what may wait. `on_left` is called where nobody
        waits for it any more while an agent works on it.

        Raises `BalancerError`. Cancelling is safe at any time: the agent is told to stop.
        """
        self._admission.check_allowed(question.model, principal)
        self._admit(question.model, principal)
        inquiry = Inquiry(
            question,
            ordinal=next(self._ordinals),
            tenant=principal.tenant,
            request_id=request_id,
            body_bytes=body_bytes,
            now_s=self._now(),
        )
        with self._run(inquiry):
            try:
                answered = await inquiry.done
            finally:
                if inquiry.attempt is not None:
                    on_left()
        self._metrics.questions_answered.inc()
        if isinstance(answered.answer, Scores):
            self._metrics.done_without_slot(
                agents={answered.agent: sum(answered.answer.tokens)},
                model=answered.model,
                response_s=answered.total_ms / 1000,
            )
        return answered

    # --- what becomes of an attempt ---

    def on_answer(self, attempt: Attempt, answer: TextAnswer) -> None:
        """What the agent says, which may be that it cannot say."""
        self._patience.note_answer(attempt.agent)
        inquiry = self._ended(attempt, is_answered=True)
        if inquiry.is_over:
            return
        problem = problem_with(inquiry.question, answer)
        if problem is not None:
            self._on_failure(inquiry, attempt, problem)
            return
        self._failures.note_success(attempt.agent)
        inquiry.finish(answer, attempt.agent, now_s=self._now())

    def _ended(self, query: Attempt, *, is_answered: bool = False) -> Inquiry:
        inquiry = query.inquiry
        inquiry.attempt = None
        if query.timer is not None:
            query.timer.cancel()
        # what was not answered tells nothing of how long answers take
        held_s = self._now() - query.started_s if is_answered else 0.0
        self._admission.on_released(
            inquiry, inquiry.queue, held_s=held_s, prompt_s=held_s, tokens=0
        )
        return inquiry

    def _tally(self, query: Attempt) -> Tally | None:
        """Scores are work as embeddings are."""
        return super()._tally(query) if isinstance(query.inquiry.question, Rerank) else None

    def _put_back(self, query: Attempt) -> None:
        """It was the whole question."""

    def _go_on(self, request: Inquiry) -> None:
        self._start_or_wait(request)

    def _note_moved(self, query: Attempt, breakage: Breakage) -> None:
        self._metrics.questions_moved.inc()
        log.info(
            "another agent is asked",
            request_id=query.inquiry.request_id,
            agent=query.agent.name,
            reason=breakage,
        )

    # --- who is asked ---

    def _is_behind(self, request: Inquiry) -> bool:
        """Only somebody who came before goes first. Who avoids an agent holds nobody up."""
        waiting = self._room.in_order((request.queue,))
        return any(one.rank < request.rank and not one.avoided for one in waiting)

    def _start(self, request: Inquiry) -> bool:
        """Ask the agent with the most room."""
        if request.queue == ANY_MODEL and (refusal := self._admission.reason_to_refuse(ANY_MODEL)):
            request.fail(refusal)
            return True
        agents = self._able(request)
        usable = [agent for agent in agents if agent not in request.avoided] or agents
        freest = max(usable, key=_room_of, default=None)
        if freest is None or not freest.queries_free:
            return False
        self._send(request, freest)
        return True

    def _send(self, inquiry: Inquiry, agent: Agent) -> None:
        now = self._now()
        attempt = Attempt(inquiry, agent, self, started_s=now)
        question = inquiry.question
        own_name = agent.own_name(question.model)
        if own_name != question.model:  # it is under an adapter, which has no scores of its own
            if isinstance(question, Rerank):
                inquiry.fail(only_generates(question.model, own_name))
                return
            question = structs.replace(question, model=own_name)
        try:
            attempt.call_id = agent.link.queries.ask(question, attempt)
        except FrameTooLarge as error:
            inquiry.fail(RequestTooLarge(f"no agent can be sent this: {error}; send less at once"))
            return
        except UnicodeEncodeError:
            inquiry.fail(InvalidRequest("a text of the request is not valid Unicode"))
            return
        inquiry.attempt = attempt
        inquiry.asked(now)
        self._admission.on_claimed(inquiry, QueryCrew(agent), inquiry.queue)
        self._patience.watch(attempt)

    def _queries_of(self, request: Inquiry) -> Sequence[Attempt]:
        return () if request.attempt is None else (request.attempt,)

    def _able(self, request: Inquiry) -> Sequence[Agent]:
        return self._candidates(request)

    # --- who waits ---

    def _publish_waiting(self, waiting: int) -> None:
        self._metrics.questions_waiting.set(waiting)

    def waits_since_s(self, agent: Agent) -> float:
        """Since when its next question for this agent waits; infinity: none does."""
        for inquiry in self._room.in_order((*agent.names, ANY_MODEL)):
            if agent not in inquiry.avoided:
                return inquiry.waits_since_s
        return inf

    def start_waiting(self, agent: Agent) -> None:
        """Something about the agent changed: start those who wait for it, in their order."""
        for inquiry in self._room.in_order((*agent.names, ANY_MODEL)):
            if not agent.queries_free:
                return
            if inquiry.is_over or self._start(inquiry):
                self._queue.leave(inquiry)


def _room_of(agent: Agent) -> tuple[int, int]:
    """For another query; of two alike, the one that generates less has more."""
    return agent.queries_free, agent.slots_free
