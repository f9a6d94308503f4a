"""The balancer's decisions under a virtual clock: many agents and requests, in seconds or minutes.

`python -m tests.benchmarks.simulate [--agents N] [--requests N] [--policies …] [--replay FILE]`.
The policies, the waiting room and the shares are the product's own; agents are models of an engine:

- a block of a prompt that is not cached takes `block_ms`, times 1 + half the share of busy slots;
- a token takes `token_ms` with one busy slot and `slot_ms` more for each other one;
- the cache holds `cache_blocks` blocks, the least recently used go first.

The numbers are those of the benchmarks (docs/benchmarks.md); `--token-ms` and so on give others.
The load: conversations of several turns over a shared system prompt, tenants by Zipf's law, answers
with a heavy tail, agents that die and come back. Printed for each policy: time to first token,
share of the prompt blocks that were cached, largest difference of the service of tenants that had
to wait, time a decision took.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

from balancer.dispatch.waiting_room import Rank, WaitingRoom
from balancer.policy.fairness import Shares
from balancer.policy.rates import Rates
from balancer.policy.routing.policy import Facts
from balancer.policy.routing.table import POLICIES
from protocol.generation import GenerationRequest
from protocol.prefix_chain import HASH_BYTES

MODEL = "demo"
_REQUEST = GenerationRequest(model=MODEL, prompt="")


@dataclass
class Speed:
    """What an engine takes, in milliseconds."""

    block_ms: float = 60.0
    token_ms: float = 14.0
    slot_ms: float = 3.0


class SimulatedAgent:
    """Satisfies routing's `Candidate`."""

    def __init__(self, name: str, *, slots: int, speed: Speed, cache_blocks: int) -> None:
        self.name = name
        self.slots_total = slots
        self.is_draining = False
        self.rates = Rates()
        self.running: dict[int, Job] = {}
        self._speed = speed
        self._cache: OrderedDict[bytes, None] = OrderedDict()
        self._cache_blocks = cache_blocks
        self.is_up = True

    @property
    def slots_free(self) -> int:
        return self.slots_total - len(self.running) if self.is_up else 0

    def serves(self, model: str) -> bool:
        return model == MODEL

    def matched_blocks(self, chain: bytes) -> int:
        held, missing = 0, len(chain) // HASH_BYTES + 1
        while missing - held > 1:
            middle = (held + missing) // 2
            if chain[(middle - 1) * HASH_BYTES : middle * HASH_BYTES] in self._cache:
                held = middle
            else:
                missing = middle
        return held

    def begin(self, job: Job) -> tuple[float, float]:
        """How long its prompt and its answer will take."""
        cached = self.matched_blocks(job.chain)
        job.cached_blocks = cached
        share = len(self.running) / self.slots_total
        prefill_ms = (job.blocks - cached) * self._speed.block_ms * (1 + share / 2)
        others = max(len(self.running) - 1, 0)
        decode_ms = job.tokens_left * (self._speed.token_ms + others * self._speed.slot_ms)
        for at in range(0, len(job.chain), HASH_BYTES):
            block = job.chain[at : at + HASH_BYTES]
            self._cache[block] = None
            self._cache.move_to_end(block)
        while len(self._cache) > self._cache_blocks:
            self._cache.popitem(last=False)
        return prefill_ms + self._speed.token_ms, decode_ms

    def die(self) -> list[Job]:
        """Everything is gone; what ran has to go on elsewhere."""
        jobs, self.running = list(self.running.values()), {}
        self._cache.clear()
        self.is_up = False
        return jobs


@dataclass(eq=False)
class Job:
    """A request. Satisfies the waiting room's `Waiter`."""

    ordinal: int
    tenant: str
    chain: bytes
    tokens: int
    arrived_s: float
    then: Callable[[float], None] = lambda _now: None
    """Called at its end: the next turn of its conversation."""
    has_begun: bool = False
    tokens_left: int = 0
    cached_blocks: int = 0
    charged_ms: float = 0.0
    started_s: float = 0.0
    prefill_ms: float = 0.0
    first_token_s: float | None = None
    predicted_s: float | None = None
    attempt: int = 0
    queue: str = MODEL
    body_bytes: int = 0

    @property
    def rank(self) -> Rank:
        return int(not self.has_begun), self.ordinal

    @property
    def blocks(self) -> int:
        return len(self.chain) // HASH_BYTES


@dataclass
class Result:
    """What a run of one policy gave."""

    ttft_s: list[float] = field(default_factory=list)
    wait_s: dict[str, list[float]] = field(default_factory=dict)
    predicted_s: list[tuple[float, float]] = field(default_factory=list)
    """Estimated and actual waiting of those who waited."""
    blocks: int = 0
    cached_blocks: int = 0
    service_ms: dict[str, float] = field(default_factory=dict)
    most_apart_ms: float = 0.0
    decision_s: list[float] = field(default_factory=list)
    moves: int = 0
    virtual_s: float = 0.0

    def row(self) -> str:
        """One line of the table."""
        ttft = sorted(self.ttft_s)
        p99 = ttft[int(0.99 * (len(ttft) - 1))]
        decisions = sorted(self.decision_s)
        return (
            f"{median(ttft):9.3f} {p99:9.3f} {100 * self.cached_blocks / max(self.blocks, 1):8.1f} "
            f"{self.most_apart_ms / 1000:10.1f} {self.moves:7d} "
            f"{1e6 * median(decisions):8.1f} {1e6 * decisions[int(0.99 * len(decisions))]:8.1f} "
            f"{self.virtual_s:9.0f}"
        )


class Simulation:
    """One policy, one fleet, a virtual clock."""

    def __init__(
        self, agents: list[SimulatedAgent], policy: str, *, seed: int = 1, room: int = 10_000_000
    ) -> None:
        self.agents = agents
        self.now_s = 0.0
        self.result = Result()
        self._policy = {str(name): choose for name, choose in POLICIES.items()}[policy]
        self._dice = random.Random(seed)
        self._shares = Shares()
        self._room: WaitingRoom[Job] = WaitingRoom(
            max_waiting=room,
            max_of_tenant=room,
            max_bytes=1 << 60,
            shares=self._shares,
            on_change=lambda *_: None,
        )
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._starts = 0
        self._usual_ms = 2000.0
        self._slots = sum(agent.slots_total for agent in agents)

    def at(self, when_s: float, what: Callable[[], None]) -> None:
        """Have something happen."""
        heapq.heappush(self._events, (when_s, next(self._numbers), what))

    def run(self, until_s: float = float("inf")) -> Result:
        """Let everything happen."""
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, what = heapq.heappop(self._events)
            what()
        self.result.virtual_s = self.now_s
        return self.result

    def arrive(self, job: Job) -> None:
        """A request comes."""
        job.tokens_left = job.tokens
        if not (len(self._room) == 0 and self._start(job)):
            ahead = len(self._room)
            job.predicted_s = (ahead + 1) / self._slots * self._usual_ms / 1000
            self._room.enter(job)

    def kill(self, agent: SimulatedAgent, *, back_after_s: float) -> None:
        """An agent dies, and comes back with an empty cache."""
        if not agent.is_up:
            return
        for job in agent.die():
            done = self._tokens_done(job)
            job.tokens_left = max(job.tokens_left - done, 1)
            job.attempt += 1
            self.result.moves += 1
            self._shares.charge(job.tenant, self._held_ms(job) - job.charged_ms)
            if not self._start(job):
                self._room.enter(job)
        self.at(self.now_s + back_after_s, lambda: self._revive(agent))

    def _revive(self, agent: SimulatedAgent) -> None:
        agent.is_up = True
        self._start_waiting()

    def _start(self, job: Job) -> bool:
        started = time.perf_counter()
        facts = Facts(
            now_s=self.now_s,
            random_bits=self._dice.getrandbits(64),
            ordinal=self._starts,
            chain=job.chain,
        )
        agent = self._policy(_REQUEST, self.agents, facts)
        self.result.decision_s.append(time.perf_counter() - started)
        if agent is None:
            return False
        self._starts += 1
        agent.running[job.ordinal] = job
        job.charged_ms = self._usual_ms
        self._shares.starts(job.tenant, job.charged_ms)
        job.prefill_ms, decode_ms = agent.begin(job)
        job.started_s = self.now_s
        if not job.has_begun:
            waited_s = self.now_s - job.arrived_s
            self.result.wait_s.setdefault(job.tenant, []).append(waited_s)
            if job.predicted_s is not None:
                self.result.predicted_s.append((job.predicted_s, waited_s))
            self.result.blocks += job.blocks
            self.result.cached_blocks += job.cached_blocks
        job.has_begun = True
        attempt = job.attempt
        first_s = self.now_s + job.prefill_ms / 1000
        self.at(first_s, lambda: self._first_token(job, attempt))
        self.at(first_s + decode_ms / 1000, lambda: self._finish(agent, job, attempt, decode_ms))
        return True

    def _first_token(self, job: Job, attempt: int) -> None:
        if job.attempt == attempt and job.first_token_s is None:
            job.first_token_s = self.now_s
            self.result.ttft_s.append(self.now_s - job.arrived_s)

    def _finish(self, agent: SimulatedAgent, job: Job, attempt: int, decode_ms: float) -> None:
        if job.attempt != attempt:
            return
        del agent.running[job.ordinal]
        held_ms = self._held_ms(job)
        self._usual_ms += 0.05 * (held_ms - self._usual_ms)
        self._shares.charge(job.tenant, held_ms - job.charged_ms)
        service = self.result.service_ms
        service[job.tenant] = service.get(job.tenant, 0.0) + held_ms
        agent.rates.note(
            blocks=job.blocks - job.cached_blocks, prefill_ms=job.prefill_ms, decode_ms=decode_ms
        )
        self._start_waiting()
        job.then(self.now_s)

    def _held_ms(self, job: Job) -> float:
        return (self.now_s - job.started_s) * 1000

    def _tokens_done(self, job: Job) -> int:
        decoding_ms = self._held_ms(job) - job.prefill_ms
        return int(max(decoding_ms, 0.0) / 14.0)

    def _start_waiting(self) -> None:
        for job in self._room.in_order((MODEL,)):
            self._room.leave(job)  # before its rank changes
            if not self._start(job):
                self._room.enter(job)
                return


# --- loads ---


def conversations(
    simulation: Simulation, *, requests: int, tenants: int, rate: float, seed: int = 1
) -> None:
    """Conversations over shared system prompts, about `requests` turns in all, `rate` a second."""
    dice, ordinals = random.Random(seed), itertools.count()
    weights = [1 / (rank + 1) for rank in range(tenants)]
    systems = [_blocks(f"system {n}", 5) for n in range(20)]
    left = requests

    def turn(tenant: str, chain: bytes, turns: int, now_s: float) -> None:
        nonlocal left
        if left <= 0:
            return
        left -= 1
        number = next(ordinals)
        tokens = max(int(dice.lognormvariate(4.2, 0.8)), 1)
        asked = chain + _blocks(f"question {number}", dice.randrange(1, 3))
        job = Job(number, tenant, asked, min(tokens, 2000), now_s)
        if turns > 1:
            after = asked + _blocks(f"answer {number}", 1)
            think_s = dice.expovariate(1 / 5.0)
            job.then = lambda at_s: simulation.at(
                at_s + think_s, lambda: turn(tenant, after, turns - 1, simulation.now_s)
            )
        simulation.arrive(job)

    def begin() -> None:
        if left <= 0:
            return
        tenant = f"tenant-{dice.choices(range(tenants), weights)[0]}"
        turn(tenant, dice.choice(systems), dice.randrange(1, 12), simulation.now_s)
        simulation.at(simulation.now_s + dice.expovariate(rate / 6.0), begin)

    simulation.at(0.0, begin)


def failures(simulation: Simulation, *, every_s: float, seed: int = 2) -> None:
    """An agent dies every so often, and is back after ten seconds."""
    dice = random.Random(seed)

    def strike() -> None:
        if simulation._events:
            simulation.kill(dice.choice(simulation.agents), back_after_s=10.0)
            simulation.at(simulation.now_s + dice.expovariate(1 / every_s), strike)

    simulation.at(dice.expovariate(1 / every_s), strike)


def replayed(simulation: Simulation, path: Path) -> None:
    """The requests of a file of `--record-routes`, in their order and at their times."""
    for ordinal, line in enumerate(path.read_text().splitlines()):
        route = json.loads(line)
        job = Job(
            ordinal,
            route["tenant"],
            bytes.fromhex(route["chain"]),
            max(route["completion_tokens"], 1),
            route["arrived_s"],
        )
        simulation.at(job.arrived_s, partial(simulation.arrive, job))


def _blocks(text: str, count: int) -> bytes:
    dice = random.Random(text)
    return b"".join(dice.randbytes(HASH_BYTES) for _ in range(count))


def fleet(arguments: argparse.Namespace) -> list[SimulatedAgent]:
    """The agents that the command line describes."""
    speed = Speed(arguments.block_ms, arguments.token_ms, arguments.slot_ms)
    return [
        SimulatedAgent(
            f"agent-{n}", slots=arguments.slots, speed=speed, cache_blocks=arguments.cache_blocks
        )
        for n in range(arguments.agents)
    ]


def results(arguments: argparse.Namespace) -> Iterator[tuple[str, Result]]:
    """Each policy's, over the same load."""
    for policy in arguments.policies:
        simulation = Simulation(fleet(arguments), policy, seed=arguments.seed)
        if arguments.replay:
            replayed(simulation, arguments.replay)
        else:
            rate = arguments.load * arguments.agents * arguments.slots / 3.0
            conversations(
                simulation,
                requests=arguments.requests,
                tenants=arguments.tenants,
                rate=rate,
                seed=arguments.seed,
            )
        if arguments.failure_s:
            failures(simulation, every_s=arguments.failure_s, seed=arguments.seed)
        yield policy, simulation.run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=16)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--tenants", type=int, default=100)
    parser.add_argument("--load", type=float, default=0.8, help="requests a slot for each 3 s")
    parser.add_argument("--block-ms", type=float, default=Speed.block_ms)
    parser.add_argument("--token-ms", type=float, default=Speed.token_ms)
    parser.add_argument("--slot-ms", type=float, default=Speed.slot_ms)
    parser.add_argument("--cache-blocks", type=int, default=400)
    parser.add_argument("--failure-s", type=float, default=0.0, help="0: nobody dies")
    parser.add_argument("--policies", nargs="*", default=list(POLICIES))
    parser.add_argument("--replay", type=Path, help="a file of --record-routes")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    columns = ("TTFT p50", "p99 s", "cached %", "apart s", "moves", "p50 us", "p99 us", "virtual s")
    widths = (9, 9, 8, 10, 7, 8, 8, 9)
    titles = " ".join(f"{name:>{width}}" for name, width in zip(columns, widths, strict=True))
    print(f"{'policy':16s} {titles}")
    for policy, result in results(arguments):
        print(f"{policy:16s} {result.row()}", flush=True)


if __name__ == "__main__":
    main()
