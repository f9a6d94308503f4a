"""One registered agent: what it said of itself, and what is claimed of it."""

from __future__ import annotations

import time
from collections.abc import Callable

from msgspec import structs

from balancer.fleet.agent_link import AgentLink
from balancer.fleet.cached_blocks import CachedBlocks
from balancer.fleet.prefix_index import PrefixIndex
from balancer.policy.ejection import Health
from balancer.policy.rates import Rates
from protocol.agent_status import AgentStatus, Issue
from protocol.generation import AdapterScale, GenerationRequest
from protocol.jsonrpc import CallId
from protocol.models import ServedModel, names_of
from protocol.to_balancer import Finished, Heartbeat, Register

PATIENT_REFUSALS = 3
"""An agent that refused so often in a row, while it said each time that it had room, rests."""
FIRST_REST_S = 0.1
LONGEST_REST_S = 5.0
SNAPSHOT_PAUSE_S = 10.0
"""An agent whose reports of its cache have gaps is asked for a snapshot no more often than this."""


class Agent:
    """Read by everyone, changed by the roster alone. Satisfies routing's `Candidate`.

    Free slots are the agent's total less what this balancer claims and less what the agent says
    others hold (calls of an earlier link that are not over yet). A status therefore never
    overwrites a claim of ours.
    """

    clock_ahead_s: float | None = None
    """Its clock less ours when it last told the time, which took a moment to come; None: it does
    not tell."""

    def __init__(
        self,
        link: AgentLink,
        register: Register,
        *,
        now: Callable[[], float],
        health: Health,
        index: PrefixIndex,
    ) -> None:
        self.link = link
        self._claims = link.claims
        self.health = health
        self._now = now
        self.name = register.name
        self.epoch = register.epoch
        self.register = register
        self.connected_s = connected_s = now()
        self.model: ServedModel | None = register.model
        self.resume_key = register.resume_key
        self.kv_key = register.kv_key
        self.status: AgentStatus = register.status
        self.slots_total = register.status.slots_total
        """Slots that the agent has, free or not."""
        self.is_draining = False
        self.is_leaving = False
        """It said goodbye, or an operator removed it: the end of its link is no loss."""
        self.was_lost = False
        """Whether its link ended with calls on it."""
        self.drains = 0
        """How often it was drained; tells an old deadline from a new one."""
        self.issues: dict[str, Issue] = {issue.code: issue for issue in register.status.issues}
        self.noticed: dict[str, Issue] = {}
        """Issues that the balancer itself has with the agent."""
        self.names: dict[str, str] = _names_of(register.model)
        """Each name that its model goes by, with the adapter it stands for; "" for none."""
        self.rates = Rates()
        self.cached = CachedBlocks(index, register.name)
        self._compare(register.status)
        self._may_ask_snapshot_s = connected_s
        self._refused_at_version: int | None = None
        self._refusals_in_a_row = 0
        self._rests_until_s = connected_s
        self._held_by_others = self._count_held_by_others()
        self._slots_offered = self._count_slots_offered()
        self._no_query_since_seq: int | None = None
        self.slots_free = 0
        """Slots that could be claimed now; 0 between a refusal and news of more capacity, and few
        or none after failures. Asked of every agent at every choice, so it is kept: `recount`."""
        self.recount()
        link.watch_claims(self.recount)

    @property
    def slots_used(self) -> int:
        """Slots claimed by this balancer or held by calls that it does not know."""
        return len(self._claims) + self._held_by_others

    def recount(self) -> None:
        """Count the free slots anew: at each change of what they follow from, and before anybody
        looks while the agent is not well, as time passes."""
        free = self._slots_offered - len(self._claims)
        if not self.health.is_well:
            most = self.health.most_calls(self.slots_total, self._now())
            free = min(free, most - self.slots_used)
        self.slots_free = free if free > 0 else 0

    @property
    def queries_total(self) -> int:
        """Queries, as those for embeddings, that the agent takes at once."""
        return self.status.queries_total

    @property
    def queries_free(self) -> int:
        """Queries that it would take now; 0 between a refusal and its next status, and few or none
        after failures."""
        if self.is_draining or self._no_query_since_seq == self.status.seq:
            return 0
        most = self.status.queries_total
        if not self.health.is_well:
            most = self.health.most_calls(most, self._now())
        return max(0, most - len(self.link.queries))

    def note_query_refusal(self) -> None:
        """It had no room for a query, or its engine ended: believe it until its next status."""
        self._no_query_since_seq = self.status.seq

    @property
    def is_ejected(self) -> bool:
        """Whether it is left out because it failed too often."""
        return not self.health.is_well and self.health.ejected_until(self._now()) is not None

    def serves(self, model: str) -> bool:
        """Whether this is one of the served model's names."""
        return model in self.names

    def adapters_for(self, model: str) -> tuple[AdapterScale, ...]:
        """What is in force under this name."""
        adapter = self.names.get(model)
        return ((adapter, 1.0),) if adapter else ()

    def own_name(self, model: str) -> str:
        """What its model is called where adapters do not matter."""
        return self.model.name if self.model is not None and self.names.get(model) else model

    def addressed(self, request: GenerationRequest) -> GenerationRequest:
        """The request as this agent is sent it: a name that stands for an adapter becomes the
        model's own, and the adapter."""
        adapters = self.adapters_for(request.model)
        if not adapters:
            return request
        return structs.replace(request, model=self.own_name(request.model), adapters=adapters)

    def matched_blocks(self, chain: bytes) -> int:
        """How many blocks of a packed prefix chain its cache holds, from the first on: a guess."""
        return self.cached.matched_blocks(chain)

    def take_heartbeat(self, heartbeat: Heartbeat, *, now: float) -> bool:
        """Take a newer status; False for one that was overtaken, then nothing changed."""
        if not self.take_status(heartbeat.status, now=now):
            return False
        if heartbeat.model != self.model:
            self.model = heartbeat.model
            self.names = _names_of(heartbeat.model)
        self.resume_key = heartbeat.resume_key
        self.kv_key = heartbeat.kv_key
        return True

    def take_status(self, status: AgentStatus, *, now: float) -> bool:
        """The part of a heartbeat that a snapshot has too; False for one that was overtaken."""
        if status.seq <= self.status.seq:
            return False
        self.status = status
        self.slots_total = status.slots_total
        self.issues = {issue.code: issue for issue in status.issues}
        self._compare(status)
        if self._refused_at_version != status.capacity_version and now >= self._rests_until_s:
            self._refused_at_version = None
        self._held_by_others = self._count_held_by_others()
        self._slots_offered = self._count_slots_offered()
        self.recount()
        return True

    def _compare(self, status: AgentStatus) -> None:
        """What it says of its cache and its clock with what is known here."""
        self.cached.compare(status.cache_seq)
        if status.clock_s is not None:
            self.clock_ahead_s = status.clock_s - time.time()

    def begin_snapshot(self, *, now: float) -> bool:
        """Whether to ask for a snapshot now: reports of the cache were missed, and the last asking
        is a while ago."""
        if self.cached.is_known or now < self._may_ask_snapshot_s:
            return False
        self._may_ask_snapshot_s = now + SNAPSHOT_PAUSE_S
        return True

    def note_refusal(self, *, now: float) -> None:
        """The agent had no room although it seemed to: believe it until its capacity grows.

        One that says so again and again without ever taking a call is not asked without end: it
        rests for 0.1 s, doubling to 5 s, before a status can open it.
        """
        if self._refused_at_version is None:
            self._refusals_in_a_row += 1
        self._refused_at_version = self.status.capacity_version
        self._slots_offered = self._count_slots_offered()
        self.recount()
        doublings = min(self._refusals_in_a_row - PATIENT_REFUSALS, 10)
        if doublings >= 0:
            self._rests_until_s = now + min(FIRST_REST_S * 2**doublings, LONGEST_REST_S)

    def note_commit(self) -> None:
        """The agent took a call: it can be believed about its room."""
        self._refusals_in_a_row = 0

    def note_speed(self, finished: Finished, *, blocks: int) -> None:
        """Learn from a whole call, of so many blocks of a prefix chain, how fast the agent is."""
        usage, timings = finished.usage, finished.timings
        if usage.prompt_tokens < 1:
            return
        self.rates.note(
            blocks=blocks * (1.0 - usage.cached_tokens / usage.prompt_tokens),
            prefill_ms=max(timings.prefill_ms, 0.0),
            decode_ms=max(timings.decode_ms, 0.0),
        )

    @property
    def held(self) -> frozenset[CallId]:
        """The calls that the agent knows of, by its last status."""
        status = self.status
        return frozenset((*status.running, *status.waiting, *status.paused))

    def _count_held_by_others(self) -> int:
        return sum(not self.link.has_ever_called(call_id) for call_id in self.held)

    def _count_slots_offered(self) -> int:
        """To this balancer, claimed or not."""
        is_closed = self._refused_at_version is not None
        return 0 if is_closed else self.slots_total - self._held_by_others


def _names_of(model: ServedModel | None) -> dict[str, str]:
    return {} if model is None else {**model.adapter_names(), **dict.fromkeys(names_of(model), "")}
