"""Embeddings: a batch is split over the agents that have room, and joined in order.

A part whose agent dies, refuses or says nothing for too long is done elsewhere. Everything between
two waits runs without an `await`, as in the dispatcher of generations.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from math import inf

import structlog

from balancer.dispatch.admission import ANY_MODEL, Admission
from balancer.dispatch.consequences import agent_lost
from balancer.dispatch.embedding_batch import Batch, Embedded, Part
from balancer.dispatch.embedding_refusals import beyond_the_model, timed_out, without_pooling
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
from balancer.fleet.roster import Roster
from balancer.observability.metrics import Metrics
from balancer.policy.batches import split
from balancer.policy.failover import Breakage
from balancer.policy.fairness import Shares
from balancer.policy.identity.principal import Principal
from balancer.settings import Settings
from protocol.embeddings import EmbeddingRequest, Embeddings
from protocol.errors import FrameTooLarge
from protocol.jsonrpc import ErrorObject, RpcCode
from protocol.refusals import consequence_of

log = structlog.get_logger(__name__)

SMALLEST_PART = 2 * 1024
"""Characters. That fits one micro-batch, so two agents would not be done sooner."""
LARGEST_PART = 32 * 1024
"""Of a part that is lost so much is done again; an agent is given the next one when it answers."""
MOST_PASSED_OVER = 16
"""Kinds of waiting batches that are tried in vain when an agent has room. Others that avoid the
agent are then left out; who avoids nobody never is."""
_UNUSABLE = ErrorObject(code=int(RpcCode.INTERNAL_ERROR), message="its vectors do not fit together")


class EmbeddingDispatcher:
    """Runs batches of inputs on the roster's agents."""

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
        self._shares = Shares()
        self._room: WaitingRoom[Batch] = WaitingRoom(
            max_waiting=settings.max_waiting,
            max_of_tenant=settings.max_waiting_of_tenant,
            max_bytes=settings.max_waiting_bytes,
            shares=self._shares,
            on_change=lambda waiting, _: metrics.embeddings_waiting.set(waiting),
        )
        self._admission = Admission(
            roster=QueryFleet(roster), settings=settings, queues=self._room, now=now
        )
        self._queue = QueryQueue(self._room, admission=self._admission, settings=settings, now=now)
        self._failures = QueryFailures(roster=roster, admission=self._admission, now=now)
        self._patience: Patience[Part] = Patience(
            timeout_s=settings.query_timeout_s, on_stalled=self._on_stalled
        )
        self._batches: Underway[Batch] = Underway()
        self._arrivals = 0
        self._parts = 0
        self._is_draining = False
        self._turns = turns or QueryTurns(roster)
        self._turns.add(self)

    async def embed(
        self,
        request: EmbeddingRequest,
        principal: Principal,
        *,
        request_id: str,
        timeout_s: float | None = None,
        body_bytes: int = 0,
    ) -> Embedded:
        """Embed all inputs; `body_bytes` counts against what may wait.

        Raises `BalancerError`: the first input that cannot be embedded ends the request. Cancelling
        is safe at any time: agents are told to stop.
        """
        self._admit(request.model)
        self._arrivals += 1
        now = self._now()
        self._failures.note_request()
        batch = Batch(
            request,
            ordinal=self._arrivals,
            tenant=principal.tenant,
            request_id=request_id,
            body_bytes=body_bytes,
            now_s=now,
            deadline_s=None if timeout_s is None else now + timeout_s,
        )
        self._batches.add(batch)
        try:
            self._start_or_wait(batch)
            async with asyncio.timeout(timeout_s):
                embedded = await batch.done
        except TimeoutError as error:
            retry_after_s = self._admission.retry_after_s(request.model)
            raise timed_out(timeout_s, retry_after_s=retry_after_s) from error
        finally:
            self._forget(batch)
        self._metrics.embedded(inputs=len(request.inputs), tokens=embedded.prompt_tokens)
        return embedded

    # --- for the management API and shutdown ---

    @property
    def in_flight(self) -> int:
        """Batches that wait or run."""
        return len(self._batches)

    @property
    def waiting(self) -> int:
        """Batches that wait for an agent with room."""
        return len(self._room)

    def requests(self) -> list[RequestSnapshot]:
        """All that run, then all that wait, each in order."""
        now = self._now()
        rows = [batch.snapshot(now_s=now) for batch in self._batches if batch.parts]
        positions: Counter[str] = Counter()
        for batch in self._room.in_order(self._room.queues):
            positions[batch.queue] += 1
            position = positions[batch.queue]
            rows.append(batch.snapshot(now_s=now, position=position))
        return rows

    def cancel(self, request_id: str) -> bool:
        """End a request for an operator; False if it neither waits nor runs."""
        return self._batches.end(request_id, self._admission.cancelled)

    def begin_draining(self) -> None:
        """Take nothing new; what waits or runs goes on."""
        self._is_draining = True

    async def drained(self) -> None:
        """Wait until nothing waits or runs."""
        await self._batches.none_left()

    def end_all(self) -> None:
        """End what still waits or runs with 503 `draining`: the balancer stops now."""
        self._batches.end_all(self._admission.draining)

    # --- what becomes of a part ---

    def on_answer(self, part: Part, answer: Embeddings) -> None:
        """The vectors, or why an input has none."""
        self._patience.note_answer(part.agent)
        batch = self._ended(part, is_answered=True)
        if batch.done.done():
            return
        if answer.errors:
            self._on_failure(part, part.first_problem(answer))
            return
        if answer.pooling == "none":
            batch.fail(without_pooling())
            return
        if not batch.take(part, answer, now_s=self._now()):
            self._on_failure(part, _UNUSABLE)
            return
        self._failures.note_success(part.agent)
        model = part.agent.model
        batch.finish_if_whole(
            batch.request.model or (model.name if model else ""), now_s=self._now()
        )
        self._go_on(batch, freed=part.agent)

    def on_refused(self, part: Part, error: ErrorObject) -> None:
        """The agent has no room, or cannot do it."""
        batch = self._ended(part)
        if batch.done.done():
            return
        self._metrics.call_refused(error.code)
        if consequence_of(error.code).blame == "capacity":
            part.agent.note_query_refusal()
            batch.put_back(part)
            self._go_on(batch)
            return
        self._on_failure(part, error)

    def on_link_lost(self, part: Part) -> None:
        """The agent is gone."""
        batch = self._ended(part)
        if not batch.done.done():
            self._broken(part, "link_lost", agent_lost(part.agent.name, completion_tokens=0))

    def _on_stalled(self, part: Part, *, is_at_work: bool) -> None:
        """The agent said nothing of it for too long."""
        part.agent.link.queries.cancel(part.call_id)
        batch = self._ended(part)
        if not batch.done.done():
            error = self._admission.stalled(
                part.agent.name, waited_s=self._settings.query_timeout_s
            )
            self._broken(part, "stalled", error, is_to_blame=not is_at_work)

    def _on_failure(self, part: Part, error: ErrorObject) -> None:
        breakage, shown = self._failures.judged(error, part.agent, part.batch.queue)
        if breakage is None:
            part.batch.fail(shown)
        else:
            self._broken(part, breakage, shown)

    def _broken(
        self, part: Part, breakage: Breakage, error: BalancerError, *, is_to_blame: bool = True
    ) -> None:
        """Have the part done elsewhere, unless the request has had its share of that."""
        batch, agent = part.batch, part.agent
        batch.put_back(part)
        problem = self._failures.reason_to_give_up(
            batch,
            agent,
            breakage,
            error,
            able=lambda: self._able(batch),
            is_to_blame=is_to_blame,
        )
        if problem is not None:
            batch.fail(problem)
            return
        batch.waits_again(self._now())
        self._metrics.embedding_parts_moved.inc()
        log.info(
            "embeddings are done elsewhere",
            request_id=batch.request_id,
            agent=agent.name,
            reason=breakage,
            inputs=len(part.indexes),
        )
        self._go_on(batch)

    def _ended(self, part: Part, *, is_answered: bool = False) -> Batch:
        """The agent has nothing more to do with the part."""
        batch = part.batch
        batch.parts.pop(part.agent, None)
        if part.timer is not None:
            part.timer.cancel()
        seconds = self._now() - part.started_s
        self._shares.charge(batch.tenant, 1000 * seconds - part.charged_ms)
        held_s = seconds if is_answered else 0.0  # else it tells nothing of how long parts take
        self._admission.on_released(part, batch.queue, held_s=held_s, prompt_s=held_s, tokens=0)
        return batch

    # --- who does what ---

    def _admit(self, model: str) -> None:
        if self._is_draining:
            raise self._admission.draining()
        refusal = self._admission.reason_to_refuse(model)
        if refusal is not None:
            raise refusal

    def _start_or_wait(self, batch: Batch) -> None:
        """Send what can be sent now; a batch of which nothing is on its way waits."""
        if self._is_behind(batch) or not self._start(batch):
            self._queue.enter(batch)

    def _is_behind(self, batch: Batch) -> bool:
        """Whether others wait for the same agents. Those that avoid an agent, or need one of a
        certain kind, hold nobody up."""
        waiting = self._room.in_order((batch.queue,))
        return any(not (one.avoided or one.kind) for one in waiting)

    def _go_on(self, batch: Batch, *, freed: Agent | None = None) -> None:
        """A part is over: ask for what is pending, but not the agent that it freed if the turn
        there is another tenant's."""
        if batch.done.done() or not batch.pending:
            return
        left_out = freed if freed is not None and self._is_turn_of_another(batch, freed) else None
        if not self._start(batch, left_out=left_out) and not batch.parts:
            self._queue.enter(batch)

    def _is_turn_of_another(self, batch: Batch, agent: Agent) -> bool:
        """Whether somebody who was served less waits for this agent, or another kind of query."""
        if self._turns.others_wait(self, agent):
            return True
        waiting = self._next_for(agent)
        return waiting is not None and self._turn(waiting) < self._turn(batch)

    def _next_for(self, agent: Agent) -> Batch | None:
        """Whose turn it is at this agent, of those who wait."""
        for waiting in self._room.in_order((*agent.names, ANY_MODEL)):
            if agent not in waiting.avoided and waiting.kind in ("", _kind_of(agent)):
                return waiting
        return None

    def _turn(self, batch: Batch) -> tuple[int, float]:
        return batch.rank[0], self._shares.service_ms(batch.tenant)

    def _start(self, batch: Batch, *, left_out: Agent | None = None) -> bool:
        """Send parts to all that have room; whether the batch need not wait: one was sent, or it is
        over."""
        agents = self._able(batch)
        if not agents and not batch.parts and self._candidates(batch):
            batch.begin_again()  # with agents of another kind
            agents = self._able(batch)
        problem = self._problem(batch, agents)
        if problem is not None:
            batch.fail(problem)
            return True
        usable = [agent for agent in agents if agent not in batch.avoided] or agents
        # those that work on it have a share in what is left: it is theirs when they are done
        free = [
            0 if agent is left_out else agent.queries_free + (agent in batch.parts)
            for agent in usable
        ]
        cut = split(batch.costs(), free, smallest=SMALLEST_PART, largest=LARGEST_PART)
        shares = [
            (usable[part.agent], tuple(batch.pending[part.start : part.stop]))
            for part in cut
            if usable[part.agent] not in batch.parts
        ]
        for agent, indexes in shares:
            if batch.done.done():
                break
            self._send(batch, agent, indexes)
        return bool(shares)

    def _send(self, batch: Batch, agent: Agent, indexes: tuple[int, ...]) -> None:
        now = self._now()
        self._parts += 1
        part = Part(
            batch,
            agent,
            indexes,
            self,
            rank=(0, self._parts),
            started_s=now,
            dimensions=batch.request.dimensions or _dimensions_of(agent),
        )
        try:
            part.call_id = agent.link.queries.embed(batch.question(indexes), part)
        except FrameTooLarge as error:
            batch.fail(RequestTooLarge(f"no agent can be sent an input: {error}; shorten it"))
            return
        except UnicodeEncodeError:
            batch.fail(InvalidRequest("an input is not valid Unicode", param="input"))
            return
        batch.kind = _kind_of(agent)
        batch.started_s = now if batch.started_s is None else batch.started_s
        batch.sent(part)
        usual_s = self._admission.on_claimed(part, QueryCrew(agent), batch.queue)
        part.charged_ms = 1000 * usual_s
        self._shares.starts(batch.tenant, part.charged_ms)
        self._patience.watch(part)

    def _candidates(self, batch: Batch) -> Sequence[Agent]:
        """Those that serve the model, full or not."""
        model = self._admission.resolved(batch.queue)
        return () if model is None else self._roster.candidates(model)

    def _able(self, batch: Batch) -> list[Agent]:
        """Those of them whose vectors go together: with what is done, or with the freest one's of
        those that did not fail it."""
        agents = self._candidates(batch)
        freest = max(
            agents,
            key=lambda agent: (agent not in batch.avoided, agent.queries_free),
            default=None,
        )
        kind = batch.kind or (_kind_of(freest) if freest is not None else "")
        return [agent for agent in agents if _kind_of(agent) == kind]

    def _problem(self, batch: Batch, agents: Sequence[Agent]) -> BalancerError | None:
        """Why it can never be done."""
        if batch.queue == ANY_MODEL and (refusal := self._admission.reason_to_refuse(ANY_MODEL)):
            return refusal
        model = next((agent.model for agent in agents if agent.model is not None), None)
        return None if model is None else beyond_the_model(batch.request, model)

    def waits_since_s(self, agent: Agent) -> float:
        """Since when its next batch for this agent waits; infinity: none does."""
        waiting = self._next_for(agent)
        return inf if waiting is None else waiting.waits_since_s

    def start_waiting(self, agent: Agent) -> None:
        """Something about the agent changed: start those who wait for it, in their order."""
        in_vain: set[Hashable] = set()
        for batch in self._room.in_order((*agent.names, ANY_MODEL)):
            if not agent.queries_free:
                return
            kind = batch.queue, batch.kind, frozenset(batch.avoided)
            if kind in in_vain or (agent in batch.avoided and len(in_vain) >= MOST_PASSED_OVER):
                continue  # room only gets less here: what was in vain for one is for all its kind
            if batch.done.done() or self._start(batch):
                self._queue.leave(batch)
            else:
                in_vain.add(kind)

    def _forget(self, batch: Batch) -> None:
        """The request is over, however: nobody works on it any more."""
        self._queue.leave(batch)
        for part in tuple(batch.parts.values()):
            part.agent.link.queries.cancel(part.call_id)
            self._ended(part)
        self._batches.remove(batch)
        if batch.done.done() and not batch.done.cancelled():
            batch.done.exception()  # seen by whoever awaited, or by nobody: no complaint about it


def _kind_of(agent: Agent) -> str:
    """Equal where vectors go together."""
    return f"{agent.resume_key or agent.name}/{_dimensions_of(agent)}"


def _dimensions_of(agent: Agent) -> int:
    """Of its vectors, as it says; 0: it makes none."""
    return 0 if agent.model is None else agent.model.embedding_dimensions
