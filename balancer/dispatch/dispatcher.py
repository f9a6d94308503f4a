"""The story of one generation: admit, claim a slot or wait for one, relay, settle.

Choosing an agent and claiming its slot happen without an `await` between them, and so does the
start of a waiting request when a slot frees: the room's first waiter is started by whoever frees
the slot. So exactly one starts for each freed slot, and no newcomer can come between.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Hashable
from math import ceil

import structlog

from balancer.dispatch.admission import ANY_MODEL, Admission
from balancer.dispatch.chain import Chain
from balancer.dispatch.choice import Choice
from balancer.dispatch.evacuation import Evacuation
from balancer.dispatch.holding import Hold, Holding
from balancer.dispatch.journal import Journal, Record, Route
from balancer.dispatch.listing import RequestSnapshot
from balancer.dispatch.places import Places
from balancer.dispatch.relay import CACHE_SCOPE, Relay, resume_queue
from balancer.dispatch.siblings import Siblings
from balancer.dispatch.sink import Flow, Outcome, Sink
from balancer.dispatch.waiting_room import WaitingRoom
from balancer.errors import BalancerError
from balancer.fleet.agent import Agent
from balancer.fleet.roster import Roster
from balancer.observability.metrics import Metrics
from balancer.policy import failover
from balancer.policy.eta import Outlook
from balancer.policy.failover import Breakage, RetryBudget
from balancer.policy.fairness import Shares
from balancer.policy.holding import HOLDING
from balancer.policy.identity.principal import Principal
from balancer.settings import Settings
from protocol.generation import GenerationRequest

__all__ = ["Dispatcher", "Flow", "Outcome", "Sink"]


log = structlog.get_logger(__name__)

MOST_PASSED_OVER = 16
"""Kinds of waiting ones that are tried in vain for one free slot. Others that avoid its agent are
then left out: they wait for agents that have not failed them. Who avoids nobody is never left out.
"""

CLOCK_STEP_S = 0.001
"""A timer may come as much too early."""


def _draw_bits() -> int:
    return random.getrandbits(64)


class Dispatcher:
    """Runs generations on the roster's agents."""

    def __init__(
        self,
        *,
        roster: Roster,
        settings: Settings,
        metrics: Metrics,
        now: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        random_bits: Callable[[], int] = _draw_bits,
        record_route: Record | None = None,
    ) -> None:
        self._roster = roster
        self._settings = settings
        self._metrics = metrics
        self._now = now
        self._wall_clock = wall_clock
        self._shares = Shares()
        self._room: WaitingRoom[Relay] = WaitingRoom(
            max_waiting=settings.max_waiting,
            max_of_tenant=settings.max_waiting_of_tenant,
            max_bytes=settings.max_waiting_bytes,
            shares=self._shares,
            on_change=self._publish_waiting,
        )
        self._admission = Admission(roster=roster, settings=settings, queues=self._room, now=now)
        self._choice = Choice(
            roster=roster,
            admission=self._admission,
            policy=settings.policy,
            now=now,
            random_bits=random_bits,
        )
        self._holding = Holding(self._hold_no_longer, is_vain=self._choice.is_vain)
        self._relays: dict[Relay, None] = {}
        """In the order of their coming: a set would be gone through as memory lies."""
        self.evacuation = Evacuation(
            roster=roster,
            admission=self._admission,
            choice=self._choice,
            relays=lambda: tuple(self._relays),
            progress_timeout_s=settings.progress_timeout_s,
        )
        self.places = Places(self.requests, now)
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._arrivals = 0
        self._retries = RetryBudget()
        self._journal = Journal(record_route)
        self._is_draining = False
        roster.listen(self._start_waiting)

    async def generate(
        self,
        request: GenerationRequest,
        principal: Principal,
        sink: Sink,
        *,
        request_id: str,
        timeout_s: float | None = None,
        body_bytes: int = 0,
        choice: int = 0,
        chain: Chain | None = None,
        siblings: Siblings | None = None,
    ) -> Outcome:
        """Run one generation to its end; `body_bytes` counts against what may wait. `choice` is its
        index among those of its request, `chain` and `siblings` what they share.

        Raises `BalancerError`. Cancelling is safe at any time: a running call is cancelled on its
        agent, whose slot stays claimed until the agent confirms.
        """
        self._admit(request.model)
        model = self._admission.resolved(request.model) or ANY_MODEL
        self._arrivals += 1
        self._retries.note_request(self._now())
        relay = Relay(
            request,
            sink,
            model=model,
            ordinal=self._arrivals,
            tenant=principal.tenant,
            request_id=request_id,
            choice=choice,
            chain=chain or self.chain(request),
            siblings=siblings,
            body_bytes=body_bytes,
            deadline_s=None if timeout_s is None else self._now() + timeout_s,
            conductor=self,
            metrics=self._metrics,
            now=self._now,
            created=int(self._wall_clock()),
            route=self._journal.open(request_id, principal.tenant, choice=choice, now=self._now()),
        )
        self._remember(relay)
        outcome_name = "cancelled"
        try:
            sink.attach(relay)
            self._start_or_wait(relay)
            async with asyncio.timeout(timeout_s):
                outcome = await relay.done
            outcome_name = outcome.finish_reason
            return outcome
        except TimeoutError as error:
            late = self._admission.generation_timeout(
                relay.model, timeout_s, has_begun=relay.attempts > 0
            )
            outcome_name = late.default_code
            raise late from error
        except Exception as error:
            outcome_name = error.code if isinstance(error, BalancerError) else "internal_error"
            raise
        finally:
            self._forget(relay)
            self._metrics.generation_ended(outcome_name)

    def chain(self, request: GenerationRequest) -> Chain:
        """For all generations that are made for this prompt."""
        return Chain(request, cache_scope=CACHE_SCOPE, adapters_of=self._roster.adapters_of)

    def check_room(self, model: str, principal: Principal, *, count: int, body_bytes: int) -> None:
        """Raises `BalancerError` where so many generations, each with such a body, could not all
        start or wait now."""
        self._admit(model)
        newcomers = count - self._free_for_newcomers(model)
        if newcomers > 0:
            refusal = self._admission.reason_not_to_wait(
                model, principal.tenant, body_bytes, left_s=None, newcomers=newcomers
            )
            if refusal is not None:
                raise refusal

    # --- for health, metrics and shutdown ---

    @property
    def in_flight(self) -> int:
        """Generations that wait or run."""
        return len(self._relays)

    @property
    def waiting(self) -> int:
        """Generations that wait for a slot."""
        return len(self._room)

    def requests(self) -> list[RequestSnapshot]:
        """All that run, then all that wait, each in order."""
        running = sorted(
            (relay for relay in self._relays if relay.agent is not None or relay.is_moving),
            key=lambda relay: relay.ordinal,
        )
        rows = [relay.snapshot() for relay in running]
        outlooks: dict[str, Outlook] = {}
        for queue in self._room.queues:
            first = self._room.first((queue,))
            hold_s = self._admission.hold_s(queue if first is None else first.model)
            for relay, ahead in self._room.expected_order(queue, hold_s):
                if relay.model not in outlooks:
                    outlooks[relay.model] = self._admission.outlook(relay.model)
                start_s = max(1, ceil(outlooks[relay.model].start_s(ahead.work_s)))
                rows.append(relay.snapshot(position=ahead.requests + 1, estimated_start_s=start_s))
        return rows

    def routes(self, request_id: str) -> list[Route]:
        """Why a request went where it went, for each of its choices; empty: it is not known, or not
        any more."""
        return self._journal.routes(request_id)

    def cancel(self, request_id: str) -> bool:
        """End a request for an operator; False if it neither waits nor runs."""
        found = [relay for relay in self._relays if relay.request_id == request_id]
        for relay in found:
            self._stop_waiting(relay)
            relay.fail(self._admission.cancelled())
        return bool(found)

    @property
    def is_draining(self) -> bool:
        """Whether nothing new is taken."""
        return self._is_draining

    def begin_draining(self) -> None:
        """Take nothing new; what waits or runs goes on."""
        self._is_draining = True

    async def drained(self, deadline_s: float) -> bool:
        """Wait until nothing waits or runs, for `deadline_s` seconds at most; whether it got so
        far."""
        try:
            async with asyncio.timeout(deadline_s):
                await self._is_idle.wait()
        except TimeoutError:
            return False
        return True

    def end_all(self) -> None:
        """End what still waits or runs with 503 `draining`: the balancer stops now."""
        for relay in tuple(self._relays):
            self._stop_waiting(relay)
            relay.fail(self._admission.draining())

    # --- Conductor ---

    def on_refused_for_capacity(self, relay: Relay, agent: Agent) -> None:
        """Back to its place in the queue, with its age; the agent is passed over for a while."""
        self._roster.note_refusal(agent)
        self._start_or_wait(relay)

    def on_broken(
        self, relay: Relay, agent: Agent, breakage: Breakage, error: BalancerError
    ) -> None:
        """Have it go on elsewhere, ahead of those who have not begun, unless it has had its
        share of that."""
        now, is_charged = self._now(), failover.is_charged(breakage)
        if breakage in ("failed", "stalled", "engine_died"):
            self._roster.note_failure(agent, engine_died=breakage == "engine_died")
        if breakage == "link_lost" and not agent.is_draining:
            self._roster.note_lost(agent)
        if breakage == "engine_died":
            self._roster.note_refusal(agent)  # until it says that it has slots again
        has_budget = not is_charged or self._retries.has_room(now)
        verdict = failover.verdict(
            breakage,
            relay.trail,
            has_budget=has_budget,
            has_others=bool(self._choice.others(relay)),
        )
        if verdict != "elsewhere":
            relay.fail(self._admission.given_up(error, verdict, relay.model))
            return
        if is_charged:
            self._retries.note_retry(now)
        self._metrics.generation_moved(breakage)
        log.info(
            "generation goes on elsewhere",
            request_id=relay.request_id,
            agent=agent.name,
            reason=breakage,
            tokens=len(relay.so_far.token_ids),
        )
        self._start_or_wait(relay)

    def on_first_token(self, agent: Agent) -> None:
        """The agent can do what it is there for."""
        if not agent.health.is_well or agent.health.has_failed:
            self._roster.note_success(agent)

    def on_claimed(self, relay: Relay, agent: Agent) -> float:
        """Charge the tenant what the call should take; in milliseconds."""
        hold_ms = 1000 * self._admission.on_claimed(relay, agent, relay.model)
        self._shares.starts(relay.tenant, hold_ms)
        return hold_ms

    def on_slot_held(self, relay: Relay, seconds: float, *, charged_ms: float) -> None:
        """Settle what the tenant was charged; estimates of waiting times are made from it, too."""
        self._shares.charge(relay.tenant, 1000 * seconds - charged_ms)
        self._admission.on_released(
            relay,
            relay.model,
            held_s=seconds,
            prompt_s=relay.times.prompt_s(held_s=seconds),
            tokens=relay.so_far.count_here,
        )

    def retry_after_s(self, model: str) -> int:
        """When a request for this model should find a slot, in whole seconds."""
        return self._admission.retry_after_s(model)

    # --- inside ---

    def _admit(self, model: str) -> None:
        if self._is_draining:
            raise self._admission.draining()
        refusal = self._admission.reason_to_refuse(model)
        if refusal is not None:
            raise refusal

    def _free_for_newcomers(self, model: str) -> int:
        """Slots that nobody waits for."""
        if self._room.length_of(model):
            return 0
        agents = self._roster.agents() if model == ANY_MODEL else self._roster.candidates(model)
        return sum(agent.slots_free for agent in agents if not agent.is_draining)

    def _remember(self, relay: Relay) -> None:
        self._relays[relay] = None
        self._is_idle.clear()
        self._metrics.generations_in_flight.set(len(self._relays))

    def _forget(self, relay: Relay) -> None:
        self._stop_waiting(relay)
        relay.leave()
        self._relays.pop(relay, None)
        self._journal.close(
            relay.route,
            lambda: relay.prefix_chain,
            completion_tokens=len(relay.so_far.token_ids),
        )
        self._metrics.generations_in_flight.set(len(self._relays))
        if not self._relays:
            self._is_idle.set()

    def _start_or_wait(self, relay: Relay) -> None:
        """Start the relay unless others wait before it; else let it wait where its age puts it."""
        relay.may_hold = self._may_hold(relay)
        if not self._is_behind(relay) and self._start(relay):
            return
        if relay.attempts == 0 or self._settings.queue_timeout_s == 0:
            error = self._admission.reason_not_to_wait(
                relay.model, relay.tenant, relay.body_bytes, left_s=relay.left_s
            )
            if error is not None:
                relay.fail(error)
                return
        left_s = self._may_wait_s(relay)
        if left_s <= 0:
            # at once: a timer of no seconds would come after the next news of room
            relay.fail(self._admission.queue_timeout(relay.model))
            return
        self._room.enter(relay)
        relay.expiry = asyncio.get_running_loop().call_later(left_s, self._expire, relay)

    def _start(self, relay: Relay) -> bool:
        """Choose and claim, with no `await` between; False where nobody has room, or where it had
        better wait for an agent in particular."""
        may_hold = relay.may_hold and (self._holding.agent_of(relay) or not self._holding.is_full)
        choice = self._choice.for_relay(
            relay, waiting_for=self._holding.waiting_for if may_hold else None
        )
        if choice is None:
            return False
        if isinstance(choice, Hold):
            self._holding.hold(relay, choice)
            return False
        relay.start(*choice)
        return True

    def _hold_no_longer(self, relay: Relay) -> None:
        """It has waited long enough for the agent that has its beginning."""
        relay.may_hold = False
        if not relay.is_over and self._start(relay):
            self._stop_waiting(relay)

    def _may_hold(self, relay: Relay) -> bool:
        """Whether it may wait though somebody has room."""
        return (
            self._settings.policy in HOLDING
            and self._settings.queue_timeout_s > 0
            and relay.attempts == 0
            and relay.left_s is None
            and self._room.has_room(relay.body_bytes)
            and self._room.has_room_for(relay.tenant)
        )

    def _is_behind(self, relay: Relay) -> bool:
        """Whether others wait for the same agents, and come before it. Those that avoid an agent,
        or wait for one in particular, hold nobody up."""
        first = self._room.first((relay.queue,))
        if first is None:
            return False
        if self._holds_up(first):  # mostly: then the others need not be looked at
            return relay.rank[0] >= first.rank[0]
        for waiting in self._room.in_order((relay.queue,)):
            if relay.rank[0] < waiting.rank[0]:
                return False
            if self._holds_up(waiting):
                return True
        return False

    def _holds_up(self, waiting: Relay) -> bool:
        """Whether those behind it have to wait until it starts."""
        return not waiting.avoided and self._holding.agent_of(waiting) is None

    def _start_waiting(self, agent: Agent) -> None:
        """The agent has room: start those who waited longest for one of its names."""
        if not len(self._room):
            return
        self._refuse_ambiguous()
        queues = (resume_queue(agent.resume_key), *agent.names, ANY_MODEL)
        in_vain: set[Hashable] = set()
        for relay in self._room.in_order(queues):
            if not agent.slots_free or agent.is_draining:
                return
            if self._holding.agent_of(relay) not in (None, agent.name):
                continue
            kind = relay.model, relay.queue, frozenset(relay.avoided)
            if kind in in_vain or (agent in relay.avoided and len(in_vain) >= MOST_PASSED_OVER):
                continue  # slots only get fewer here: what was in vain for one is for all its kind
            if relay.is_over or self._start(relay):
                self._stop_waiting(relay)
            elif self._holding.agent_of(relay) is None:  # else it would rather wait, not so others
                in_vain.add(kind)

    def _refuse_ambiguous(self) -> None:
        """Who waits without a model's name cannot be served once there are several."""
        for relay in self._room.all_of(ANY_MODEL):
            refusal = self._admission.reason_to_refuse(ANY_MODEL)
            if refusal is None:
                return
            self._stop_waiting(relay)
            relay.fail(refusal)

    def _may_wait_s(self, relay: Relay) -> float:
        """How much longer; a sibling that an agent took starts the time anew."""
        siblings = relay.siblings
        since_s = relay.times.waits_since_s
        if siblings is not None:
            since_s = max(since_s, siblings.progressed_s)
        return since_s + self._settings.queue_timeout_s - self._now()

    def _expire(self, relay: Relay) -> None:
        left_s = self._may_wait_s(relay)
        if left_s > CLOCK_STEP_S:
            relay.expiry = asyncio.get_running_loop().call_later(left_s, self._expire, relay)
            return
        self._stop_waiting(relay)
        relay.fail(self._admission.queue_timeout(relay.model))

    def _stop_waiting(self, relay: Relay) -> None:
        self._room.leave(relay)
        self._holding.release(relay)
        if relay.expiry is not None:
            relay.expiry.cancel()
            relay.expiry = None

    def _publish_waiting(self, waiting: int, waiting_bytes: int) -> None:
        self._metrics.requests_waiting.set(waiting)
        self._metrics.requests_waiting_bytes.set(waiting_bytes)
