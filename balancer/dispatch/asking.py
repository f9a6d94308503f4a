"""Questions that one agent answers in one piece: scores, a text's ids, ids' text, a chat's prompt.

They take no slot. Each is put to the least loaded agent that has room for a query, put to another
where that one dies, refuses or says nothing for too long, and waits its turn where nobody has room.
Everything between two waits runs without an `await`, as in the dispatcher of generations.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from math import inf

import structlog
from msgspec import structs

from balancer.dispatch.admission import ANY_MODEL, Admission, only_generates
from balancer.dispatch.consequences import agent_lost
from balancer.dispatch.inquiry import Answered, Attempt, Inquiry, problem_with
from balancer.dispatch.listing import RequestSnapshot
from balancer.dispatch.query_failures import QueryFailures
from balancer.dispatch.query_fleet import QueryCrew, QueryFleet
from balancer.dispatch.query_patience import Patience
from balancer.dispatch.query_queue import QueryQueue
from balancer.dispatch.query_turns import QueryTurns
from balancer.dispatch.underway import Underway
from balancer.dispatch.waiting_room import WaitingRoom
from balancer.errors import BalancerError, InvalidRequest, RequestTooLarge
from balancer.fleet.agent import Agent
from balancer.fleet.queries import TextAnswer, TextQuestion
from balancer.fleet.roster import Roster
from balancer.observability.metrics import Metrics
from balancer.policy.failover import Breakage
from balancer.policy.fairness import Shares
from balancer.policy.identity.principal import Principal
from balancer.settings import Settings
from protocol.errors import FrameTooLarge
from protocol.jsonrpc import ErrorObject
from protocol.refusals import consequence_of
from protocol.to_agent import Rerank

log = structlog.get_logger(__name__)


class Asker:
    """Puts questions to the roster's agents. At most `max_waiting` wait, as long as generations
    may, in the order of their coming; past that they are refused."""

    def __init__(
        self,
        *,
        roster: Roster,
        settings: Settings,
        metrics: Metrics,
        turns: QueryTurns | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`turns`: where other kinds of queries go to the same agents."""
        self._roster = roster
        self._settings = settings
        self._metrics = metrics
        self._now = now
        self._room: WaitingRoom[Inquiry] = WaitingRoom(
            max_waiting=settings.max_waiting,
            max_of_tenant=settings.max_waiting_of_tenant,
            max_bytes=settings.max_waiting_bytes,
            shares=Shares(),  # nobody is charged: questions are short
            on_change=lambda waiting, _: metrics.questions_waiting.set(waiting),
        )
        self._admission = Admission(
            roster=QueryFleet(roster), settings=settings, queues=self._room, now=now
        )
        self._queue = QueryQueue(self._room, admission=self._admission, settings=settings, now=now)
        self._failures = QueryFailures(roster=roster, admission=self._admission, now=now)
        self._patience: Patience[Attempt] = Patience(
            timeout_s=settings.query_timeout_s, on_stalled=self._on_stalled
        )
        self._inquiries: Underway[Inquiry] = Underway()
        self._arrivals = 0
        self._is_draining = False
        (turns or QueryTurns(roster)).add(self)

    async def ask(
        self,
        question: TextQuestion,
        principal: Principal,
        *,
        request_id: str,
        body_bytes: int = 0,
    ) -> Answered:
        """The answer; `body_bytes` counts against what may wait.

        Raises `BalancerError`. Cancelling is safe at any time: the agent is told to stop.
        """
        self._admit(question.model)
        self._arrivals += 1
        self._failures.note_request()
        now = self._now()
        inquiry = Inquiry(
            question=question,
            ordinal=self._arrivals,
            tenant=principal.tenant,
            request_id=request_id,
            body_bytes=body_bytes,
            arrived_s=now,
            waits_since_s=now,
            done=asyncio.get_running_loop().create_future(),
        )
        self._inquiries.add(inquiry)
        try:
            self._start_or_wait(inquiry)
            answered = await inquiry.done
        finally:
            self._forget(inquiry)
        self._metrics.questions_answered.inc()
        return answered

    # --- for the management API and shutdown ---

    @property
    def in_flight(self) -> int:
        """Questions that wait or run."""
        return len(self._inquiries)

    @property
    def waiting(self) -> int:
        """Questions that wait for an agent with room."""
        return len(self._room)

    def requests(self) -> list[RequestSnapshot]:
        """All that run, then all that wait, each in order."""
        now = self._now()
        rows = [one.snapshot(now_s=now) for one in self._inquiries if one.attempt is not None]
        positions: Counter[str] = Counter()
        for inquiry in self._room.in_order(self._room.queues):
            positions[inquiry.queue] += 1
            rows.append(inquiry.snapshot(now_s=now, position=positions[inquiry.queue]))
        return rows

    def cancel(self, request_id: str) -> bool:
        """End a request for an operator; False if it neither waits nor runs."""
        return self._inquiries.end(request_id, self._admission.cancelled)

    def begin_draining(self) -> None:
        """Take nothing new; what waits or runs goes on."""
        self._is_draining = True

    async def drained(self) -> None:
        """Wait until nothing waits or runs."""
        await self._inquiries.none_left()

    def end_all(self) -> None:
        """End what still waits or runs with 503 `draining`: the balancer stops now."""
        self._inquiries.end_all(self._admission.draining)

    # --- what becomes of an attempt ---

    def on_answer(self, attempt: Attempt, answer: TextAnswer) -> None:
        """What the agent says, which may be that it cannot say."""
        self._patience.note_answer(attempt.agent)
        inquiry = self._ended(attempt, is_answered=True)
        if inquiry.done.done():
            return
        problem = problem_with(inquiry.question, answer)
        if problem is not None:
            self._on_failure(attempt, problem)
            return
        self._failures.note_success(attempt.agent)
        inquiry.finish(answer, attempt.agent, now_s=self._now())

    def on_refused(self, attempt: Attempt, error: ErrorObject) -> None:
        """The agent has no room, or cannot do it."""
        inquiry = self._ended(attempt)
        if inquiry.done.done():
            return
        self._metrics.call_refused(error.code)
        if consequence_of(error.code).blame == "capacity":
            attempt.agent.note_query_refusal()
            self._start_or_wait(inquiry)
            return
        self._on_failure(attempt, error)

    def on_link_lost(self, attempt: Attempt) -> None:
        """The agent is gone."""
        if not self._ended(attempt).done.done():
            self._broken(attempt, "link_lost", agent_lost(attempt.agent.name, completion_tokens=0))

    def _on_stalled(self, attempt: Attempt, *, is_at_work: bool) -> None:
        """The agent said nothing of it for too long."""
        attempt.agent.link.queries.cancel(attempt.call_id)
        if not self._ended(attempt).done.done():
            error = self._admission.stalled(
                attempt.agent.name, waited_s=self._settings.query_timeout_s
            )
            self._broken(attempt, "stalled", error, is_to_blame=not is_at_work)

    def _on_failure(self, attempt: Attempt, error: ErrorObject) -> None:
        inquiry = attempt.inquiry
        breakage, shown = self._failures.judged(error, attempt.agent, inquiry.queue)
        if breakage is None:
            inquiry.fail(shown)
        else:
            self._broken(attempt, breakage, shown)

    def _broken(
        self,
        attempt: Attempt,
        breakage: Breakage,
        error: BalancerError,
        *,
        is_to_blame: bool = True,
    ) -> None:
        """Have another agent asked, unless the question has had its share of that."""
        inquiry, agent = attempt.inquiry, attempt.agent
        problem = self._failures.reason_to_give_up(
            inquiry,
            agent,
            breakage,
            error,
            able=lambda: self._candidates(inquiry),
            is_to_blame=is_to_blame,
        )
        if problem is not None:
            inquiry.fail(problem)
            return
        inquiry.waits_since_s = self._now()
        self._metrics.questions_moved.inc()
        log.info(
            "another agent is asked",
            request_id=inquiry.request_id,
            agent=agent.name,
            reason=breakage,
        )
        self._start_or_wait(inquiry)

    def _ended(self, attempt: Attempt, *, is_answered: bool = False) -> Inquiry:
        """The agent has nothing more to do with it."""
        inquiry = attempt.inquiry
        inquiry.attempt = None
        if attempt.timer is not None:
            attempt.timer.cancel()
        # what was not answered tells nothing of how long answers take
        held_s = self._now() - attempt.started_s if is_answered else 0.0
        self._admission.on_released(
            inquiry, inquiry.queue, held_s=held_s, prompt_s=held_s, tokens=0
        )
        return inquiry

    # --- who is asked ---

    def _admit(self, model: str) -> None:
        if self._is_draining:
            raise self._admission.draining()
        refusal = self._admission.reason_to_refuse(model)
        if refusal is not None:
            raise refusal

    def _start_or_wait(self, inquiry: Inquiry) -> None:
        if self._is_behind(inquiry) or not self._start(inquiry):
            self._queue.enter(inquiry)

    def _is_behind(self, inquiry: Inquiry) -> bool:
        """Whether somebody who came before waits for the same agents. Who avoids one holds nobody
        up."""
        waiting = self._room.in_order((inquiry.queue,))
        return any(one.rank < inquiry.rank and not one.avoided for one in waiting)

    def _start(self, inquiry: Inquiry) -> bool:
        """Ask the agent with the most room; whether the question need not wait: it is on its way,
        or over."""
        if inquiry.queue == ANY_MODEL and (refusal := self._admission.reason_to_refuse(ANY_MODEL)):
            inquiry.fail(refusal)
            return True
        agents = self._candidates(inquiry)
        usable = [agent for agent in agents if agent not in inquiry.avoided] or agents
        freest = max(usable, key=_room_of, default=None)
        if freest is None or not freest.queries_free:
            return False
        self._send(inquiry, freest)
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
        inquiry.started_s = now if inquiry.started_s is None else inquiry.started_s
        self._admission.on_claimed(inquiry, QueryCrew(agent), inquiry.queue)
        self._patience.watch(attempt)

    def _candidates(self, inquiry: Inquiry) -> Sequence[Agent]:
        """Those that serve the model, full or not."""
        model = self._admission.resolved(inquiry.queue)
        return () if model is None else self._roster.candidates(model)

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
            if inquiry.done.done() or self._start(inquiry):
                self._queue.leave(inquiry)

    def _forget(self, inquiry: Inquiry) -> None:
        """The request is over, however: nobody works on it any more."""
        self._queue.leave(inquiry)
        attempt = inquiry.attempt
        if attempt is not None:
            attempt.agent.link.queries.cancel(attempt.call_id)
            self._ended(attempt)
        self._inquiries.remove(inquiry)
        if inquiry.done.done() and not inquiry.done.cancelled():
            inquiry.done.exception()  # seen by whoever awaited, or by nobody: no complaint about it


def _room_of(agent: Agent) -> tuple[int, int]:
    """For another query; of two alike, the one that generates less has more."""
    return agent.queries_free, agent.slots_free
