"""A balancer and its agents under a virtual clock.

Policy, shares, waiting room and admission are the product's own; what is left out is what carries
bytes. Requests start as in `dispatch.dispatcher`: at once if nobody waits, else whose turn it is
whenever a slot is free.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from balancer.dispatch.admission import Admission
from balancer.dispatch.waiting_room import Rank, WaitingRoom
from balancer.fleet.prefix_index import PrefixIndex
from balancer.policy.fairness import Shares
from balancer.policy.holds import length_class
from balancer.policy.routing.policy import Facts
from balancer.policy.routing.table import POLICIES
from balancer.settings import LiveSettings, PolicyName, Settings
from protocol.generation import GenerationRequest
from protocol.models import ServedModel
from protocol.prefix_chain import BLOCK_BYTES, HASH_BYTES
from tests.benchmarks.simulate.clock import Clock
from tests.benchmarks.simulate.engine import MODEL, Call, SimulatedAgent
from tests.benchmarks.simulate.figures import WINDOW_S, Figures, Services
from tests.benchmarks.simulate.speed import Speed

_REQUEST = GenerationRequest(model=MODEL, prompt="")
NO_LIMIT = 10_000_000


def _nothing() -> None:
    """For those whose end concerns nobody."""


@dataclass(eq=False, slots=True)
class Job:
    """A request. Satisfies the waiting room's `Waiter`."""

    ordinal: int
    tenant: str
    chain: bytes
    tokens: int
    arrived_s: float
    max_tokens: int | None = None
    on_end: Callable[[], None] = _nothing
    """The next turn of its conversation."""
    queue: str = MODEL
    has_begun: bool = False
    has_first_token: bool = False
    predicted_s: float | None = None
    """How long it should wait, said when it came; None: it did not wait."""
    started_s: float = 0.0
    charged_ms: float = 0.0

    @property
    def rank(self) -> Rank:
        return int(not self.has_begun), self.ordinal

    @property
    def body_bytes(self) -> int:
        return len(self.chain) // HASH_BYTES * BLOCK_BYTES

    @property
    def length(self) -> int:
        return length_class(self.max_tokens)


class Fleet:
    """Agents that are up. Satisfies admission's `Fleet`."""

    has_agents = had_agents = True

    def __init__(self, agents: list[SimulatedAgent]) -> None:
        self.up = agents

    def agents(self) -> Sequence[SimulatedAgent]:
        return self.up

    def candidates(self, model: str) -> Sequence[SimulatedAgent]:
        return self.up if model == MODEL else []

    def served_models(self) -> list[ServedModel]:
        return [ServedModel(name=MODEL, context_tokens=4096)]

    def is_remembered(self, model: str) -> bool:
        return model == MODEL


@dataclass(frozen=True)
class Size:
    """Of a fleet."""

    agents: int = 1
    slots: int = 8
    cache_blocks: int = 400


class Site:
    """One policy, one fleet, one clock."""

    def __init__(
        self,
        size: Size,
        speed: Speed,
        *,
        policy: PolicyName = "least_busy",
        seed: int = 1,
        max_waiting: int = NO_LIMIT,
    ) -> None:
        self.clock = Clock()
        self.figures = Figures()
        self.services = Services()
        self._index = PrefixIndex()
        self.agents = [
            SimulatedAgent(
                f"agent-{n}", size.slots, speed, self.clock, size.cache_blocks, self._index
            )
            for n in range(size.agents)
        ]
        self._fleet = Fleet(list(self.agents))
        self._free = size.agents * size.slots
        self._policy = POLICIES[policy]
        self._dice = random.Random(seed)
        self.shares = Shares()
        settings = LiveSettings(
            Settings(
                max_waiting=max_waiting,
                max_waiting_of_tenant=max_waiting,
                max_waiting_bytes=1 << 60,
            )
        )
        self.room: WaitingRoom[Job] = WaitingRoom(
            settings=settings,
            shares=self.shares,
            on_change=lambda *_: None,
        )
        self.admission = Admission(
            roster=self._fleet,
            settings=settings,
            queues=self.room,
            now=self.clock.now,
        )
        self.waiting: Counter[str] = Counter()
        """Requests that wait, by tenant."""
        self._starts = 0
        self._running: dict[int, Job] = {}
        self.clock.in_background(WINDOW_S, self._look)

    @property
    def has_free_slot(self) -> bool:
        """Whether a request could start now."""
        return self._free > 0

    def run(self, until_s: float = float("inf")) -> Figures:
        """Let everything happen until then."""
        started = time.process_time()
        self.clock.run(until_s)
        self.figures.cpu_s += time.process_time() - started
        self.figures.virtual_s = self.clock.now_s
        self.figures.apart_s = self.services.most_apart_s
        return self.figures

    def arrive(self, job: Job) -> None:
        """A request comes."""
        if not len(self.room) and self._start(job):
            return
        if not (self.room.has_room(0) and self.room.has_room_for(job.tenant)):
            self.figures.refused += 1
            return
        job.predicted_s = self.admission.start_s(MODEL, job.tenant)
        self._enter(job)

    def kill(self, agent: SimulatedAgent, *, back_after_s: float) -> None:
        """An agent dies, and comes back with an empty cache."""
        if not agent.is_up:
            return
        self._free -= agent.slots_total
        self._fleet.up = [one for one in self._fleet.up if one is not agent]
        for call in agent.die():
            job = self._release(call)
            job.tokens = call.tokens
            self.figures.moves += 1
            if not self._start(job):
                self._enter(job)
        self.clock.at(self.clock.now_s + back_after_s, self._revive, agent)

    def _revive(self, agent: SimulatedAgent) -> None:
        agent.come_back()
        self._fleet.up = [one for one in self.agents if one.is_up]
        self._free += agent.slots_total
        self._start_waiting()

    def _start_waiting(self) -> None:
        while self._free and (job := self.room.first((MODEL,))) is not None:
            self._leave(job)  # before its rank changes
            if not self._start(job):
                self._enter(job)
                return

    def _enter(self, job: Job) -> None:
        self.waiting[job.tenant] += 1
        self.room.enter(job)

    def _leave(self, job: Job) -> None:
        self.room.leave(job)
        self.waiting[job.tenant] -= 1
        if not self.waiting[job.tenant]:
            del self.waiting[job.tenant]
            self.services.waits_no_more(job.tenant)

    def _start(self, job: Job) -> bool:
        if not self._free:
            return False
        began = time.perf_counter()
        facts = Facts(
            now_s=self.clock.now_s,
            random_bits=self._dice.getrandbits(64),
            ordinal=self._starts,
            chain=job.chain,
            matched=self._index.matched_blocks(job.chain),
        )
        agent = self._policy(_REQUEST, self._fleet.up, facts)
        self.figures.decision_s.append(time.perf_counter() - began)
        if agent is None:
            return False
        self._starts += 1
        self._free -= 1
        self._running[job.ordinal] = job
        job.charged_ms = 1000 * self.admission.on_claimed(job, agent, MODEL)
        self.shares.starts(job.tenant, job.charged_ms)
        self.services.begins(job.tenant, self.clock.now_s)
        call = Call(job.ordinal, job.chain, job.tokens, self._on_first_token, self._on_end)
        agent.begin(call)
        if not job.has_begun:
            job.has_begun, job.started_s = True, self.clock.now_s
            self._note_start(job, call)
        return True

    def _note_start(self, job: Job, call: Call) -> None:
        figures, waited_s = self.figures, self.clock.now_s - job.arrived_s
        figures.wait_s.setdefault(job.tenant, []).append(waited_s)
        if job.predicted_s is not None:
            figures.starts_s.append((job.predicted_s, waited_s))
        figures.blocks += len(job.chain) // HASH_BYTES
        figures.cached_blocks += call.cached_blocks

    def _on_first_token(self, call: Call) -> None:
        job = self._running[call.key]
        if not job.has_first_token:
            job.has_first_token = True
            self.figures.ttft_s.append(self.clock.now_s - job.arrived_s)

    def _on_end(self, call: Call) -> None:
        job = self._release(call)
        self._free += 1
        self._start_waiting()
        job.on_end()

    def _release(self, call: Call) -> Job:
        """What both the end of a call and its agent's mean for those who count."""
        job, now_s = self._running.pop(call.key), self.clock.now_s
        held_s = now_s - call.started_s
        first_s = now_s if call.first_token_s is None else call.first_token_s
        self.admission.on_released(
            job,
            MODEL,
            held_s=held_s,
            prompt_s=first_s - call.started_s,
            tokens=call.given,
        )
        self.shares.charge(job.tenant, 1000 * held_s - job.charged_ms)
        self.services.ends(job.tenant, call.started_s, now_s)
        self.figures.longest_call_s = max(self.figures.longest_call_s, held_s)
        return job

    def _look(self) -> None:
        self.services.look(list(self.waiting), self.clock.now_s)
        self.clock.in_background(self.clock.now_s + WINDOW_S, self._look)
