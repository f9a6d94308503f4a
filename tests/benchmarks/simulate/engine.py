"""An agent and its engine as a model: what its calls take, without an event for each token.

Between two events everything goes on evenly: prompts one after the other, all generating calls one
token a step. While both are there, prompts have `prefill_share` of the time. A call's end is a
number of steps, so a start or an end beside it changes when that is, and nothing else.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from balancer.fleet.prefix_index import PrefixIndex
from balancer.policy.rates import Rates
from protocol.prefix_chain import HASH_BYTES
from tests.benchmarks.simulate.clock import Clock
from tests.benchmarks.simulate.speed import Speed

MODEL = "demo"
_A_HAIR = 1e-6
"""Rounding: what is as near to its end as this is at its end."""


@dataclass(eq=False, slots=True)
class Call:
    """What an engine works on: blocks of a prompt, then tokens. Milliseconds of work are left."""

    key: int
    chain: bytes
    tokens: int
    """Those that are to come; after its agent's death, those that it did not give."""
    on_first_token: Callable[[Call], None]
    on_end: Callable[[Call], None]
    cached_blocks: int = 0
    prompt_left_ms: float = 0.0
    started_s: float = 0.0
    first_token_s: float | None = None
    last_step: float = 0.0
    given: int = 0


@dataclass(eq=False)
class SimulatedAgent:
    """Satisfies routing's `Candidate` and admission's `Crew`."""

    name: str
    slots_total: int
    speed: Speed
    clock: Clock
    cache_blocks: int
    index: PrefixIndex = field(default_factory=PrefixIndex)
    """What all agents of a fleet hold, as the balancer keeps it."""
    is_draining: bool = False
    is_up: bool = True
    slots_free: int = 0
    rates: Rates = field(default_factory=Rates)
    calls: dict[int, Call] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.slots_free = self.slots_total
        self._prompts: deque[Call] = deque()
        self._generating: list[tuple[float, int, Call]] = []
        self._steps = 0.0
        self._at_s = 0.0
        self._plan = 0
        self._cache: OrderedDict[bytes, None] = OrderedDict()
        self._bit = self.index.enter(self.name)

    def serves(self, model: str) -> bool:
        return model == MODEL

    def matched_blocks(self, chain: bytes) -> int:
        """What is cached is cached from the first block on, so it is found by halving."""
        held, missing, cache = 0, len(chain) // HASH_BYTES + 1, self._cache
        while missing - held > 1:
            middle = (held + missing) // 2
            if chain[(middle - 1) * HASH_BYTES : middle * HASH_BYTES] in cache:
                held = middle
            else:
                missing = middle
        return held

    def begin(self, call: Call) -> None:
        """Take a slot."""
        self._advance()
        call.cached_blocks = self.matched_blocks(call.chain)
        blocks = len(call.chain) // HASH_BYTES
        # at least a few tokens of the last block are always computed
        call.prompt_left_ms = max(blocks - call.cached_blocks, 0.1) * self.speed.block_ms
        call.started_s = self.clock.now_s
        self._remember(call.chain)
        self.calls[call.key] = call
        self.slots_free -= 1
        self._prompts.append(call)
        self._plan_next()

    def die(self) -> list[Call]:
        """Everything is gone; what ran has to go on elsewhere."""
        self._advance()
        lost = list(self.calls.values())
        for call in lost:
            left = max(1, round(self.tokens_left(call)))
            call.given, call.tokens = call.tokens - left, left
        self.calls, self._generating = {}, []
        self._prompts.clear()
        self.index.discard(self._cache, self._bit)
        self._cache.clear()
        self.is_up, self.slots_free = False, 0
        self._plan += 1
        return lost

    def come_back(self) -> None:
        """With an empty cache."""
        self.is_up, self.slots_free, self._at_s = True, self.slots_total, self.clock.now_s

    def tokens_left(self, call: Call) -> float:
        """How many it still has to give."""
        if call.first_token_s is None:
            return call.tokens
        return max(call.last_step - self._steps, 0.0)

    def _advance(self) -> None:
        """Do the work that was possible since the last time."""
        passed_ms = (self.clock.now_s - self._at_s) * 1000
        self._at_s = self.clock.now_s
        share = self._prefill_share
        if self._prompts:
            self._prompts[0].prompt_left_ms -= passed_ms * share
        if self._generating:
            step_ms = self.speed.step_ms(len(self._generating))
            self._steps += passed_ms * (1 - share) / step_ms

    @property
    def _prefill_share(self) -> float:
        if not self._prompts:
            return 0.0
        return self.speed.prefill_share if self._generating else 1.0

    def _plan_next(self) -> None:
        """Be woken when the next prompt or answer is done."""
        self._plan += 1
        share, next_ms = self._prefill_share, float("inf")
        if self._prompts:
            next_ms = self._prompts[0].prompt_left_ms / share
        if self._generating:
            step_ms = self.speed.step_ms(len(self._generating))
            left = self._generating[0][0] - self._steps
            next_ms = min(next_ms, left * step_ms / (1 - share))
        if next_ms != float("inf"):
            when_s = self.clock.now_s + max(next_ms, 0.0) / 1000
            self.clock.at(when_s, self._wake, self._plan)

    def _wake(self, plan: int) -> None:
        if plan != self._plan:
            return  # something began or ended meanwhile
        self._advance()
        ended = []
        if self._prompts and self._prompts[0].prompt_left_ms <= _A_HAIR:
            self._first_token(self._prompts.popleft())
        while self._generating and self._generating[0][0] <= self._steps + _A_HAIR:
            call = heapq.heappop(self._generating)[2]
            del self.calls[call.key]
            self.slots_free += 1
            call.given = call.tokens
            ended.append(call)
        self._plan_next()
        for call in ended:
            self._note_rates(call)
            call.on_end(call)

    def _first_token(self, call: Call) -> None:
        call.first_token_s = self.clock.now_s
        call.last_step = self._steps + call.tokens - 1
        heapq.heappush(self._generating, (call.last_step, call.key, call))
        call.on_first_token(call)

    def _note_rates(self, call: Call) -> None:
        first_s = call.first_token_s or call.started_s
        self.rates.note(
            blocks=len(call.chain) // HASH_BYTES - call.cached_blocks,
            prefill_ms=(first_s - call.started_s) * 1000,
            decode_ms=(self.clock.now_s - first_s) * 1000,
        )

    def _remember(self, chain: bytes) -> None:
        """The last block is the first to go, so that what stays begins at the first."""
        cache = self._cache
        for at in range(len(chain) - HASH_BYTES, -1, -HASH_BYTES):
            block = chain[at : at + HASH_BYTES]
            if block not in cache:
                self.index.add((block,), self._bit)
            cache[block] = None
            cache.move_to_end(block)
        while len(cache) > self.cache_blocks:
            block, _ = cache.popitem(last=False)
            self.index.discard((block,), self._bit)
