"""The story of a request that takes no slot, whatever is asked: admitted, sent or waiting, put to
another agent where one dies, refuses or says nothing for too long, and ended.

Everything between two waits runs without an `await`, as in the dispatcher of generations.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Generic, Protocol, TypeVar

from balancer.dispatch.admission import Admission
from balancer.dispatch.consequences import agent_lost
from balancer.dispatch.listing import RequestSnapshot
from balancer.dispatch.query_failures import QueryFailures
from balancer.dispatch.query_fleet import QueryFleet
from balancer.dispatch.query_patience import Patience, Watched
from balancer.dispatch.query_queue import QueryQueue
from balancer.dispatch.query_request import QueryRequest
from balancer.dispatch.query_turns import QueryTurns
from balancer.dispatch.underway import Underway
from balancer.dispatch.waiting_room import WaitingRoom
from balancer.errors import BalancerError
from balancer.fleet.agent import Agent
from balancer.fleet.roster import Roster
from balancer.observability.metrics import Metrics
from balancer.observability.tallies import Tally
from balancer.policy.failover import Breakage
from balancer.policy.fairness import Shares
from balancer.policy.identity.principal import Principal
from balancer.settings import LiveSettings
from protocol.jsonrpc import ErrorObject
from protocol.refusals import consequence_of


class SentQuery(Watched, Protocol):
    """What an agent was asked for a request."""

    call_id: int


AnyRequest = TypeVar("AnyRequest", bound=QueryRequest[object])
AnyQuery = TypeVar("AnyQuery", bound=SentQuery)


class QueryDispatcher(ABC, Generic[AnyRequest, AnyQuery]):
    """Runs requests of one kind on the roster's agents. At most `max_waiting` wait, as long as
    generations may; past that they are refused."""

    def __init__(
        self,
        *,
        roster: Roster,
        settings: LiveSettings,
        metrics: Metrics,
        turns: QueryTurns | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`turns`: where other kinds of queries go to the same agents."""
        self._roster = roster
        self._settings = settings
        self._metrics = metrics
        self._now = now
        self._shares = Shares()
        self._room: WaitingRoom[AnyRequest] = WaitingRoom(
            settings=settings,
            shares=self._shares,
            on_change=lambda waiting, _: self._publish_waiting(waiting),
        )
        self._admission = Admission(
            roster=QueryFleet(roster), settings=settings, queues=self._room, now=now
        )
        self._queue = QueryQueue(self._room, admission=self._admission, settings=settings, now=now)
        self._failures = QueryFailures(roster=roster, admission=self._admission, now=now)
        self._patience: Patience[AnyQuery] = Patience(
            settings=settings, on_stalled=self._on_stalled
        )
        self._requests: Underway[AnyRequest] = Underway()
        self._ordinals = count(1)
        self._is_draining = False
        self._turns = turns or QueryTurns(roster)
        self._turns.add(self)

    # --- what each kind does in its own way ---

    @abstractmethod
    def waits_since_s(self, agent: Agent) -> float:
        """Since when its next request for this agent waits; infinity: none does."""

    @abstractmethod
    def start_waiting(self, agent: Agent) -> None:
        """Something about the agent changed: start those who wait for it, in their order."""

    @abstractmethod
    def _publish_waiting(self, waiting: int) -> None:
        """Have it measured how many wait."""

    @abstractmethod
    def _queries_of(self, request: AnyRequest) -> Sequence[AnyQuery]:
        """Those that are on their way."""

    @abstractmethod
    def _ended(self, query: AnyQuery, *, is_answered: bool = False) -> AnyRequest:
        """The agent has nothing more to do with it; whose it was."""

    @abstractmethod
    def _put_back(self, query: AnyQuery) -> None:
        """The agent does not do it after all."""

    @abstractmethod
    def _able(self, request: AnyRequest) -> Sequence[Agent]:
        """Those that could go on with it, full or not."""

    @abstractmethod
    def _is_behind(self, request: AnyRequest) -> bool:
        """Whether somebody goes first who waits for the same agents."""

    @abstractmethod
    def _start(self, request: AnyRequest) -> bool:
        """Ask agents that have room; whether it need not wait: one was asked, or it is over."""

    @abstractmethod
    def _go_on(self, request: AnyRequest) -> None:
        """It got a query back: ask somebody else, or wait."""

    def _tally(self, query: AnyQuery) -> Tally | None:
        """Where it is counted what becomes of it; None: it is too small a thing."""
        return self._metrics.of_agents.of(query.agent.name)

    @abstractmethod
    def _note_moved(self, query: AnyQuery, breakage: Breakage) -> None:
        """Another agent is to do what broke off."""

    # --- for the management API and shutdown ---

    @property
    def in_flight(self) -> int:
        """Requests that wait or run."""
        return len(self._requests)

    @property
    def waiting(self) -> int:
        """Requests that wait for an agent with room."""
        return len(self._room)

    def requests(self) -> list[RequestSnapshot]:
        """All that run, then all that wait, each in order."""
        now = self._now()
        rows = [one.snapshot(now_s=now) for one in self._requests if self._queries_of(one)]
        positions: Counter[str] = Counter()
        for request in self._room.in_order(self._room.queues):
            positions[request.queue] += 1
            rows.append(request.snapshot(now_s=now, position=positions[request.queue]))
        return rows

    def cancel(self, request_id: str) -> bool:
        """End a request for an operator; False if it neither waits nor runs."""
        return self._requests.end(request_id, self._admission.cancelled)

    def begin_draining(self) -> None:
        """Take nothing new; what waits or runs goes on."""
        self._is_draining = True

    async def drained(self) -> None:
        """Wait until nothing waits or runs."""
        await self._requests.none_left()

    def end_all(self) -> None:
        """End what still waits or runs with 503 `draining`: the balancer stops now."""
        self._requests.end_all(self._admission.draining)

    # --- what becomes of a query ---

    def on_refused(self, query: AnyQuery, error: ErrorObject) -> None:
        """The agent has no room, or cannot do it."""
        request = self._ended(query)
        if request.is_over:
            return
        self._metrics.call_refused(error.code)
        if consequence_of(error.code).blame == "capacity":
            query.agent.note_query_refusal()
            self._put_back(query)
            self._go_on(request)
            return
        self._on_failure(request, query, error)

    def on_link_lost(self, query: AnyQuery) -> None:
        """The agent is gone."""
        request = self._ended(query)
        if not request.is_over:
            error = agent_lost(query.agent.name, completion_tokens=0)
            self._broken(request, query, "link_lost", error)

    def _on_stalled(self, query: AnyQuery, *, is_at_work: bool) -> None:
        """The agent said nothing of it for too long."""
        query.agent.link.queries.cancel(query.call_id)
        request = self._ended(query)
        if not request.is_over:
            error = self._admission.stalled(
                query.agent.name, waited_s=self._settings.current.query_timeout_s
            )
            self._broken(request, query, "stalled", error, is_to_blame=not is_at_work)

    def _on_failure(self, request: AnyRequest, query: AnyQuery, error: ErrorObject) -> None:
        breakage, shown = self._failures.judged(error, query.agent, request.queue)
        if breakage is None:
            request.fail(shown)
        else:
            self._broken(request, query, breakage, shown)

    def _broken(
        self,
        request: AnyRequest,
        query: AnyQuery,
        breakage: Breakage,
        error: BalancerError,
        *,
        is_to_blame: bool = True,
    ) -> None:
        """Have it done elsewhere, unless the request has had its share of that."""
        if (tally := self._tally(query)) is not None:
            tally.broke()
        self._put_back(query)
        problem = self._failures.reason_to_give_up(
            request,
            query.agent,
            breakage,
            error,
            able=lambda: self._able(request),
            is_to_blame=is_to_blame,
        )
        if problem is not None:
            request.fail(problem)
            return
        request.waits_again(self._now())
        self._note_moved(query, breakage)
        self._go_on(request)

    # --- from the arrival to the end ---

    def _admit(self, model: str, principal: Principal) -> None:
        """Raises `BalancerError` where a request for it is not taken."""
        if self._is_draining:
            raise self._admission.draining()
        refusal = self._admission.reason_to_refuse(model, principal.models)
        if refusal is not None:
            raise refusal
        self._failures.note_request()

    @contextmanager
    def _run(self, request: AnyRequest) -> Iterator[None]:
        """Start it or let it wait; nobody works on it any more afterwards."""
        self._requests.add(request)
        try:
            self._start_or_wait(request)
            yield
        finally:
            self._forget(request)

    def _start_or_wait(self, request: AnyRequest) -> None:
        if self._is_behind(request) or not self._start(request):
            self._queue.enter(request)

    def _candidates(self, request: AnyRequest) -> Sequence[Agent]:
        """Those that serve the model, full or not."""
        model = self._admission.resolved(request.queue)
        return () if model is None else self._roster.candidates(model)

    def _forget(self, request: AnyRequest) -> None:
        self._queue.leave(request)
        for query in self._queries_of(request):
            query.agent.link.queries.cancel(query.call_id)
            self._ended(query)
            if (tally := self._tally(query)) is not None:
                tally.left()
        self._requests.remove(request)
        request.leave()
