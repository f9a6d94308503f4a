"""The story of one generation: admit, claim a slot or wait for one, relay, settle.

Choosing an agent and claiming its slot happen without an `await` between them, and so does the
start of a waiting request when a slot frees: the room's first waiter is started by whoever frees
the slot. So exactly one starts for each freed slot, and no newcomer can come between.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable

from balancer.dispatch.admission import ANY_MODEL, Admission
from balancer.dispatch.relay import Relay
from balancer.dispatch.sink import Flow, Outcome, Sink
from balancer.dispatch.waiting_room import WaitingRoom
from balancer.fleet.agent import Agent
from balancer.fleet.roster import Roster
from balancer.observability.metrics import Metrics
from balancer.policy.identity.principal import Principal
from balancer.policy.routing.policy import Facts
from balancer.policy.routing.table import POLICIES
from balancer.settings import Settings
from protocol.generation import GenerationRequest

__all__ = ["Dispatcher", "Flow", "Outcome", "Sink"]


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
    ) -> None:
        self._roster = roster
        self._settings = settings
        self._metrics = metrics
        self._now = now
        self._wall_clock = wall_clock
        self._random_bits = random_bits
        self._policy = POLICIES[settings.policy]
        self._room: WaitingRoom[Relay] = WaitingRoom(
            max_waiting=settings.max_waiting,
            max_bytes=settings.max_waiting_bytes,
            on_change=self._publish_waiting,
        )
        self._admission = Admission(roster=roster, settings=settings, queues=self._room)
        self._relays: set[Relay] = set()
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._arrivals = 0
        self._starts: Counter[str] = Counter()
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
    ) -> Outcome:
        """Run one generation to its end; `body_bytes` counts against what may wait.

        Raises `BalancerError`. Cancelling is safe at any time: a running call is cancelled on its
        agent, whose slot stays claimed until the agent confirms.
        """
        self._admit(request.model)
        self._arrivals += 1
        relay = Relay(
            request,
            sink,
            ordinal=self._arrivals,
            tenant=principal.tenant,
            request_id=request_id,
            body_bytes=body_bytes,
            deadline_s=None if timeout_s is None else self._now() + timeout_s,
            conductor=self,
            metrics=self._metrics,
            now=self._now,
            wall_clock=self._wall_clock,
        )
        self._remember(relay)
        try:
            sink.attach(relay)
            self._start_or_wait(relay)
            async with asyncio.timeout(timeout_s):
                return await relay.done
        except TimeoutError as error:
            raise self._admission.generation_timeout(request.model, timeout_s) from error
        finally:
            self._forget(relay)

    # --- for health, metrics and shutdown ---

    @property
    def in_flight(self) -> int:
        """Generations that wait or run."""
        return len(self._relays)

    @property
    def waiting(self) -> int:
        """Generations that wait for a slot."""
        return len(self._room)

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

    def on_slot_held(self, seconds: float) -> None:
        """What estimates of waiting times are made from."""
        self._admission.on_slot_held(seconds)

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

    def _remember(self, relay: Relay) -> None:
        self._relays.add(relay)
        self._is_idle.clear()
        self._metrics.generations_in_flight.set(len(self._relays))

    def _forget(self, relay: Relay) -> None:
        self._stop_waiting(relay)
        relay.leave()
        self._relays.discard(relay)
        self._metrics.generations_in_flight.set(len(self._relays))
        if not self._relays:
            self._is_idle.set()

    def _start_or_wait(self, relay: Relay) -> None:
        """Start the relay unless others wait before it; else let it wait where its age puts it."""
        if self._room.first((relay.queue,)) is None and self._start(relay):
            return
        if relay.attempts == 0 or self._settings.queue_timeout_s == 0:
            error = self._admission.reason_not_to_wait(relay.queue, relay.body_bytes)
            if error is not None:
                relay.fail(error)
                return
        left_s = relay.arrived_s + self._settings.queue_timeout_s - self._now()
        if left_s <= 0:
            # at once: a timer of no seconds would come after the next news of room
            relay.fail(self._admission.queue_timeout(relay.queue))
            return
        self._room.enter(relay)
        relay.expiry = asyncio.get_running_loop().call_later(left_s, self._expire, relay)

    def _start(self, relay: Relay) -> bool:
        """Choose and claim, with no `await` between; False where nobody has room."""
        model = self._admission.resolved(relay.queue)
        if model is None:
            return False
        facts = Facts(
            now_s=self._now(), random_bits=self._random_bits(), ordinal=self._starts[model]
        )
        request = relay.request_for(model)
        agent = self._policy(request, self._roster.candidates(model), facts)
        if agent is None:
            return False
        # a count for each model, of starts only: else two models asked in turn would each go to
        # every second one of their agents; names are those of agents, so they are bounded
        self._starts[model] += 1
        relay.start(agent, request)
        return True

    def _start_waiting(self, agent: Agent) -> None:
        """The agent has room: start those who waited longest for one of its names."""
        if not len(self._room):
            return
        self._refuse_ambiguous()
        while agent.slots_free and not agent.is_draining:
            relay = self._room.first((*agent.names, ANY_MODEL))
            if relay is None or not (relay.is_over or self._start(relay)):
                return
            self._stop_waiting(relay)

    def _refuse_ambiguous(self) -> None:
        """Who waits without a model's name cannot be served once there are several."""
        for relay in self._room.all_of(ANY_MODEL):
            refusal = self._admission.reason_to_refuse(ANY_MODEL)
            if refusal is None:
                return
            self._stop_waiting(relay)
            relay.fail(refusal)

    def _expire(self, relay: Relay) -> None:
        self._stop_waiting(relay)
        relay.fail(self._admission.queue_timeout(relay.queue))

    def _stop_waiting(self, relay: Relay) -> None:
        self._room.leave(relay)
        if relay.expiry is not None:
            relay.expiry.cancel()
            relay.expiry = None

    def _publish_waiting(self, waiting: int, waiting_bytes: int) -> None:
        self._metrics.requests_waiting.set(waiting)
        self._metrics.requests_waiting_bytes.set(waiting_bytes)
