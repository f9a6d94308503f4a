"""When a generation starts: at once, or when an agent has room and it is its turn.

Choosing an agent and claiming its slot happen without an `await` between them, and so does the
start of a waiting request when a slot frees: the room's first waiter is started by whoever frees
the slot. So exactly one starts for each freed slot, and no newcomer can come between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable

from balancer.dispatch.admission import ANY_MODEL, Admission
from balancer.dispatch.choice import Choice
from balancer.dispatch.generation import resume_queue
from balancer.dispatch.holding import Hold, Holding
from balancer.dispatch.relay import Relay
from balancer.dispatch.waiting_room import WaitingRoom
from balancer.fleet.agent import Agent
from balancer.fleet.roster import Roster
from balancer.policy.holding import HOLDING
from balancer.settings import LiveSettings

MOST_PASSED_OVER = 16
"""Kinds of waiting ones that are tried in vain for one free slot. Others that avoid its agent are
then left out: they wait for agents that have not failed them. Who avoids nobody is never left out.
"""

CLOCK_STEP_S = 0.001
"""A timer may come as much too early."""


class Starts:
    """Starts relays on agents with room; the others wait in the room, each as long as it may."""

    def __init__(
        self,
        *,
        roster: Roster,
        settings: LiveSettings,
        room: WaitingRoom[Relay],
        admission: Admission,
        choice: Choice,
        now: Callable[[], float],
    ) -> None:
        self._roster = roster
        self._settings = settings
        self._room = room
        self._admission = admission
        self._choice = choice
        self._now = now
        self._holding = Holding(self._hold_no_longer, is_vain=choice.is_vain)
        roster.listen(self._start_waiting)

    def start_or_wait(self, relay: Relay) -> None:
        """Start the relay unless others wait before it; else let it wait where its age puts it."""
        relay.may_hold = self._may_hold(relay)
        if not self._is_behind(relay) and self._start(relay):
            return
        if relay.attempts == 0 or self._settings.current.queue_timeout_s == 0:
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

    def stop_waiting(self, relay: Relay) -> None:
        """It waits no more, if it did."""
        self._room.leave(relay)
        self._holding.release(relay)
        if relay.expiry is not None:
            relay.expiry.cancel()
            relay.expiry = None

    def free_for_newcomers(self, model: str) -> int:
        """Slots that nobody waits for."""
        if self._room.length_of(model):
            return 0
        agents = self._roster.agents() if model == ANY_MODEL else self._roster.candidates(model)
        return sum(agent.slots_free for agent in agents if not agent.is_draining)

    # --- inside ---

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
            self.stop_waiting(relay)

    def _may_hold(self, relay: Relay) -> bool:
        """Whether it may wait though somebody has room."""
        return (
            self._settings.current.policy in HOLDING
            and self._settings.current.queue_timeout_s > 0
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
                self.stop_waiting(relay)
            elif self._holding.agent_of(relay) is None:  # else it would rather wait, not so others
                in_vain.add(kind)

    def _refuse_ambiguous(self) -> None:
        """Who waits without a model's name cannot be served once there are several."""
        for relay in self._room.all_of(ANY_MODEL):
            refusal = self._admission.reason_to_refuse(ANY_MODEL)
            if refusal is None:
                return
            self.stop_waiting(relay)
            relay.fail(refusal)

    def _may_wait_s(self, relay: Relay) -> float:
        """How much longer; a sibling that an agent took starts the time anew."""
        siblings = relay.siblings
        since_s = relay.times.waits_since_s
        if siblings is not None:
            since_s = max(since_s, siblings.progressed_s)
        return since_s + self._settings.current.queue_timeout_s - self._now()

    def _expire(self, relay: Relay) -> None:
        left_s = self._may_wait_s(relay)
        if left_s > CLOCK_STEP_S:
            relay.expiry = asyncio.get_running_loop().call_later(left_s, self._expire, relay)
            return
        self.stop_waiting(relay)
        relay.fail(self._admission.queue_timeout(relay.model))
