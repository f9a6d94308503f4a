"""Embeddings: a batch is split over the agents that have room, and joined in order.

A part whose agent dies, refuses or says nothing for too long is done elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from math import inf

import structlog

from balancer.dispatch.admission import ANY_MODEL
from balancer.dispatch.embedding_batch import Batch, Embedded, Part
from balancer.dispatch.embedding_refusals import beyond_the_model, timed_out, without_pooling
from balancer.dispatch.query_dispatcher import QueryDispatcher
from balancer.dispatch.query_fleet import QueryCrew
from balancer.errors import BalancerError, InvalidRequest, RequestTooLarge
from balancer.fleet.agent import Agent
from balancer.policy.batches import split
from balancer.policy.failover import Breakage
from balancer.policy.identity.principal import Principal
from protocol.embeddings import EmbeddingRequest, Embeddings
from protocol.errors import FrameTooLarge
from protocol.jsonrpc import ErrorObject, RpcCode

log = structlog.get_logger(__name__)

SMALLEST_PART = 2 * 1024
"""Characters. That fits one micro-batch, so two agents would not be done sooner."""
LARGEST_PART = 32 * 1024
"""Of a part that is lost so much is done again; an agent is given the next one when it answers."""
MOST_PASSED_OVER = 16
"""Kinds of waiting batches that are tried in vain when an agent has room. Others that avoid the
agent are then left out; who avoids nobody never is."""
_UNUSABLE = ErrorObject(code=int(RpcCode.INTERNAL_ERROR), message="its vectors do not fit together")


class EmbeddingDispatcher(QueryDispatcher[Batch, Part]):
    """Runs batches of inputs on the roster's agents."""

    async def embed(
        self,
        request: EmbeddingRequest,
        principal: Principal,
        *,
        request_id: str,
        timeout_s: float | None = None,
        body_bytes: int = 0,
        spent: Callable[[int], None] = lambda _: None,
    ) -> Embedded:
        """Embed all inputs; `body_bytes` counts against what may wait. However it ends, `spent` is
        told how many tokens agents have worked on.

        Raises `BalancerError`: the first input that cannot be embedded ends the request. Cancelling
        is safe at any time: agents are told to stop.
        """
        self._admission.check_allowed(request.model, principal)
        self._admit(request.model, principal)
        now = self._now()
        batch = Batch(
            request,
            ordinal=next(self._ordinals),
            tenant=principal.tenant,
            request_id=request_id,
            body_bytes=body_bytes,
            now_s=now,
            deadline_s=None if timeout_s is None else now + timeout_s,
        )
        with self._run(batch):
            try:
                async with asyncio.timeout(timeout_s):
                    embedded = await batch.done
            except TimeoutError as error:
                retry_after_s = self._admission.retry_after_s(request.model)
                raise timed_out(timeout_s, retry_after_s=retry_after_s) from error
            finally:
                spent(batch.tokens_worked_on)
        self._metrics.embedded(inputs=len(request.inputs), tokens=embedded.prompt_tokens)
        self._metrics.done_without_slot(
            agents=batch.tokens_of,
            model=embedded.model,
            response_s=embedded.total_ms / 1000,
        )
        return embedded

    # --- what becomes of a part ---

    def on_answer(self, part: Part, answer: Embeddings) -> None:
        """The vectors, or why an input has none."""
        self._patience.note_answer(part.agent)
        batch = self._ended(part, is_answered=True)
        if batch.is_over:
            return
        if answer.errors:
            self._on_failure(batch, part, part.first_problem(answer))
            return
        if answer.pooling == "none":
            batch.fail(without_pooling())
            return
        if not batch.take(part, answer, now_s=self._now()):
            self._on_failure(batch, part, _UNUSABLE)
            return
        self._failures.note_success(part.agent)
        model = part.agent.model
        batch.finish_if_whole(
            batch.request.model or (model.name if model else ""), now_s=self._now()
        )
        self._go_on(batch, freed=part.agent)

    def _ended(self, query: Part, *, is_answered: bool = False) -> Batch:
        batch = query.batch
        batch.parts.pop(query.agent, None)
        if query.timer is not None:
            query.timer.cancel()
        seconds = self._now() - query.started_s
        self._shares.charge(batch.tenant, 1000 * seconds - query.charged_ms)
        held_s = seconds if is_answered else 0.0  # else it tells nothing of how long parts take
        self._admission.on_released(query, batch.queue, held_s=held_s, prompt_s=held_s, tokens=0)
        return batch

    def _put_back(self, query: Part) -> None:
        query.batch.put_back(query)

    def _note_moved(self, query: Part, breakage: Breakage) -> None:
        self._metrics.embedding_parts_moved.inc()
        log.info(
            "embeddings are done elsewhere",
            request_id=query.batch.request_id,
            agent=query.agent.name,
            reason=breakage,
            inputs=len(query.indexes),
        )

    # --- who does what ---

    def _is_behind(self, request: Batch) -> bool:
        """Those that avoid an agent, or need one of a certain kind, hold nobody up."""
        waiting = self._room.in_order((request.queue,))
        return any(not (one.avoided or one.kind) for one in waiting)

    def _go_on(self, request: Batch, *, freed: Agent | None = None) -> None:
        """A part is over: ask for what is pending, but not the agent that it freed if the turn
        there is another tenant's."""
        if request.is_over or not request.pending:
            return
        left_out = freed if freed is not None and self._is_turn_of_another(request, freed) else None
        if not self._start(request, left_out=left_out) and not request.parts:
            self._queue.enter(request)

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

    def _start(self, request: Batch, *, left_out: Agent | None = None) -> bool:
        """Send parts to all that have room, but for `left_out`."""
        agents = self._able(request)
        if not agents and not request.parts and self._candidates(request):
            request.begin_again()  # with agents of another kind
            agents = self._able(request)
        problem = self._problem(request, agents)
        if problem is not None:
            request.fail(problem)
            return True
        usable = [agent for agent in agents if agent not in request.avoided] or agents
        # those that work on it have a share in what is left: it is theirs when they are done
        free = [
            0 if agent is left_out else agent.queries_free + (agent in request.parts)
            for agent in usable
        ]
        cut = split(request.costs(), free, smallest=SMALLEST_PART, largest=LARGEST_PART)
        shares = [
            (usable[part.agent], tuple(request.pending[part.start : part.stop]))
            for part in cut
            if usable[part.agent] not in request.parts
        ]
        for agent, indexes in shares:
            if request.is_over:
                break
            self._send(request, agent, indexes)
        return bool(shares)

    def _send(self, batch: Batch, agent: Agent, indexes: tuple[int, ...]) -> None:
        now = self._now()
        part = Part(
            batch,
            agent,
            indexes,
            self,
            rank=(0, next(self._ordinals)),
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
        batch.asked(now)
        batch.sent(part)
        usual_s = self._admission.on_claimed(part, QueryCrew(agent), batch.queue)
        part.charged_ms = 1000 * usual_s
        self._shares.starts(batch.tenant, part.charged_ms)
        self._patience.watch(part)

    def _queries_of(self, request: Batch) -> Sequence[Part]:
        return tuple(request.parts.values())

    def _able(self, request: Batch) -> list[Agent]:
        """Those of them whose vectors go together: with what is done, or with the freest one's of
        those that did not fail it."""
        agents = self._candidates(request)
        freest = max(
            agents,
            key=lambda agent: (agent not in request.avoided, agent.queries_free),
            default=None,
        )
        kind = request.kind or (_kind_of(freest) if freest is not None else "")
        return [agent for agent in agents if _kind_of(agent) == kind]

    def _problem(self, batch: Batch, agents: Sequence[Agent]) -> BalancerError | None:
        """Why it can never be done."""
        if batch.queue == ANY_MODEL and (refusal := self._admission.reason_to_refuse(ANY_MODEL)):
            return refusal
        model = next((agent.model for agent in agents if agent.model is not None), None)
        return None if model is None else beyond_the_model(batch.request, model)

    # --- who waits ---

    def _publish_waiting(self, waiting: int) -> None:
        self._metrics.embeddings_waiting.set(waiting)

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
            if batch.is_over or self._start(batch):
                self._queue.leave(batch)
            else:
                in_vain.add(kind)


def _kind_of(agent: Agent) -> str:
    """Equal where vectors go together."""
    return f"{agent.resume_key or agent.name}/{_dimensions_of(agent)}"


def _dimensions_of(agent: Agent) -> int:
    """Of its vectors, as it says; 0: it makes none."""
    return 0 if agent.model is None else agent.model.embedding_dimensions
