"""The story of one generation: admit, claim a slot or wait for one, relay, settle."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from math import ceil

import structlog

from balancer.dispatch.admission import ANY_MODEL, Admission
from balancer.dispatch.chain import Chain
from balancer.dispatch.choice import Choice
from balancer.dispatch.evacuation import Evacuation
from balancer.dispatch.journal import Journal, Record, Route
from balancer.dispatch.listing import RequestSnapshot
from balancer.dispatch.metering import Meter
from balancer.dispatch.places import Places
from balancer.dispatch.relay import Relay
from balancer.dispatch.siblings import Siblings
from balancer.dispatch.sink import Flow, Outcome, Sink
from balancer.dispatch.starts import Starts
from balancer.dispatch.waiting_room import WaitingRoom
from balancer.errors import BalancerError
from balancer.fleet.agent import Agent
from balancer.fleet.roster import Roster
from balancer.observability.metrics import Metrics
from balancer.policy import failover
from balancer.policy.eta import Outlook
from balancer.policy.failover import Breakage, RetryBudget
from balancer.policy.fairness import Shares
from balancer.policy.identity.principal import Principal
from balancer.settings import LiveSettings
from protocol.generation import GenerationRequest

__all__ = ["Dispatcher", "Flow", "Outcome", "Sink"]


log = structlog.get_logger(__name__)


def _draw_bits() -> int:
    return random.getrandbits(64)


def _shared_by_all(tenant: str) -> str:
    del tenant
    return ""


class Dispatcher:
    """Runs generations on the roster's agents."""

    def __init__(
        self,
        *,
        roster: Roster,
        settings: LiveSettings,
        metrics: Metrics,
        now: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        random_bits: Callable[[], int] = _draw_bits,
        record_route: Record | None = None,
        scope_of: Callable[[str], str] = _shared_by_all,
    ) -> None:
        """`scope_of`: within which a tenant's cached tokens are shared."""
        self._roster = roster
        self._settings = settings
        self._metrics = metrics
        self._now = now
        self._wall_clock = wall_clock
        self._scope_of = scope_of
        self._shares = Shares()
        self._room: WaitingRoom[Relay] = WaitingRoom(
            settings=settings, shares=self._shares, on_change=self._publish_waiting
        )
        self._admission = Admission(roster=roster, settings=settings, queues=self._room, now=now)
        self._choice = Choice(
            roster=roster,
            admission=self._admission,
            settings=settings,
            now=now,
            random_bits=random_bits,
        )
        self._starts = Starts(
            roster=roster,
            settings=settings,
            room=self._room,
            admission=self._admission,
            choice=self._choice,
            now=now,
        )
        self._relays: dict[Relay, None] = {}
        """In the order of their coming: a set would be gone through as memory lies."""
        self.evacuation = Evacuation(
            roster=roster,
            admission=self._admission,
            choice=self._choice,
            relays=lambda: tuple(self._relays),
            settings=settings,
            now=now,
        )
        self.places = Places(self.requests, now)
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._arrivals = 0
        self._retries = RetryBudget()
        self._journal = Journal(record_route)
        self._is_draining = False

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
        meter: Meter | None = None,
    ) -> Outcome:
        """Run one generation to its end; `body_bytes` counts against what may wait. `choice` is its
        index among those of its request, `chain` and `siblings` what they share; `meter` counts its
        tokens.

        Raises `BalancerError`. Cancelling is safe at any time: a running call is cancelled on its
        agent, whose slot stays claimed until the agent confirms.
        """
        self._admission.check_allowed(request.model, principal)
        self._admit(request.model, principal)
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
            chain=chain or self.chain(request, principal),
            siblings=siblings,
            meter=meter,
            body_bytes=body_bytes,
            deadline_s=None if timeout_s is None else self._now() + timeout_s,
            conductor=self,
            metrics=self._metrics,
            now=self._now,
            created=int(self._wall_clock()),
            route=self._journal.open(
                request_id,
                principal.tenant,
                choice=choice,
                now=self._now(),
                arrived=round(self._wall_clock(), 3),
            ),
        )
        self._remember(relay)
        outcome_name = "cancelled"
        try:
            sink.attach(relay)
            self._starts.start_or_wait(relay)
            if timeout_s is None:
                outcome = await relay.done
            else:
                async with asyncio.timeout(timeout_s):
                    outcome = await relay.done
            outcome_name = outcome.finish_reason
            self._count_success(relay, outcome)
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
            if relay.agent is not None:
                self._metrics.of_agents.of(relay.agent.name).left()
            relay.route.outcome = outcome_name
            relay.route.ended_after_ms = round(relay.times.age_ms, 3)
            self._forget(relay)
            self._metrics.generation_ended(outcome_name)
            relay.tell_meter()

    def chain(self, request: GenerationRequest, principal: Principal) -> Chain:
        """For all generations that are made for this prompt and caller."""
        scope = self._scope_of(principal.tenant)
        return Chain(request, cache_scope=scope, adapters_of=self._roster.adapters_of)

    def check_room(self, model: str, principal: Principal, *, count: int, body_bytes: int) -> None:
        """Raises `BalancerError` where so many generations, each with such a body, could not all
        start or wait now."""
        self._admission.check_allowed(model, principal)
        self._admit(model, principal)
        newcomers = count - self._starts.free_for_newcomers(model)
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

    def generating(self) -> Counter[str]:
        """Tokens so far of the calls that run, by agent."""
        tokens: Counter[str] = Counter()
        for relay in self._relays:
            if relay.agent is not None:
                tokens[relay.agent.name] += relay.so_far.count_here
        return tokens

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

    def finished(self, most: int) -> list[Route]:
        """The latest generations that are over, the last to end first."""
        return self._journal.finished(most)

    def cancel(self, request_id: str) -> bool:
        """End a request for an operator; False if it neither waits nor runs."""
        found = [relay for relay in self._relays if relay.request_id == request_id]
        for relay in found:
            self._starts.stop_waiting(relay)
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
            self._starts.stop_waiting(relay)
            relay.fail(self._admission.draining())

    # --- Conductor ---

    def on_refused_for_capacity(self, relay: Relay, agent: Agent) -> None:
        """Back to its place in the queue, with its age; the agent is passed over for a while."""
        self._roster.note_refusal(agent)
        self._starts.start_or_wait(relay)

    def on_broken(
        self, relay: Relay, agent: Agent, breakage: Breakage, error: BalancerError
    ) -> None:
        """Have it go on elsewhere, ahead of those who have not begun, unless it has had its
        share of that."""
        now, is_charged = self._now(), failover.is_charged(breakage)
        if breakage != "drained":
            self._metrics.of_agents.of(agent.name).broke()
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
        self._starts.start_or_wait(relay)

    def on_first_token(self, relay: Relay, agent: Agent) -> None:
        """The agent can do what it is there for."""
        self._metrics.totals.prompts_begun += relay.route.prompt_tokens
        if not agent.health.is_well or agent.health.has_failed:
            self._roster.note_success(agent)

    def on_claimed(self, relay: Relay, agent: Agent) -> float:
        """Charge the tenant what the call should take; in milliseconds."""
        hold_ms = 1000 * self._admission.on_claimed(relay, agent, relay.model)
        self._shares.starts(relay.tenant, hold_ms)
        return hold_ms

    def on_slot_held(
        self, relay: Relay, agent: Agent, seconds: float, *, charged_ms: float
    ) -> None:
        """Settle what the tenant was charged; estimates of waiting times are made from it, too."""
        self._metrics.of_agents.of(agent.name).generated += relay.so_far.count_here
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

    def _admit(self, model: str, principal: Principal) -> None:
        if self._is_draining:
            raise self._admission.draining()
        refusal = self._admission.reason_to_refuse(model, principal.models)
        if refusal is not None:
            raise refusal

    def _remember(self, relay: Relay) -> None:
        self._relays[relay] = None
        self._is_idle.clear()
        self._metrics.generations_in_flight.set(len(self._relays))

    def _forget(self, relay: Relay) -> None:
        self._starts.stop_waiting(relay)
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

    def _count_success(self, relay: Relay, outcome: Outcome) -> None:
        tokens = outcome.usage.prompt_tokens + outcome.usage.completion_tokens
        for tally in (
            self._metrics.of_agents.of(outcome.agent),
            self._metrics.of_models.of(relay.model),
        ):
            tally.succeeded(response_s=outcome.total_ms / 1000, tokens=tokens)

    def _publish_waiting(self, waiting: int, waiting_bytes: int) -> None:
        self._metrics.requests_waiting.set(waiting)
        self._metrics.requests_waiting_bytes.set(waiting_bytes)
