"""Which tokens go into the next decode: seats, prompt chunks, pausing. Pure; knows no token.

A call sits in a seat from `admit` to `release`; the seat's `slot` is its sequence id in the KV
cache. First it is in *prefill*: its known tokens (prompt, and on resume what was generated before)
go in chunk by chunk, the last with an output. From then on it is in *decode*: one token a step,
each with an output, and behind it those that were *drafted*, each with one, too. A *paused* call
keeps its seat and what it has in the cache, and is left out; so is one that *waits* for another
call to prefill the prefix that both share.

A batch holds the decode tokens first: running streams never wait for a prompt. What room is left,
at most `prompt_budget` tokens while others generate, is shared evenly among the prompts, so that
a short one is not stuck behind a long one. Where more prompts wait than calls generate the budget
is as many times larger, unless it is strict: large batches cost less a token. Nothing is drafted
while prompts are worked on. Calls of different `group` (adapters act on a whole context) never
share a batch: their groups take turns.

An image or a sound in a prompt is a `Run` of embeddings, which share no batch with tokens: it has
batches of its own, or one if it must stay whole, and every other batch is the others'.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from protocol.invariants import present

NOTHING: Mapping[int, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Run:
    """Tokens `start` to `end` - 1 of a call are embeddings; `whole`: they see each other, and are
    decoded at once or not at all."""

    start: int
    end: int
    whole: bool


@dataclass(slots=True, eq=False)
class Seat:
    """One call in its slot. `cached` counts its tokens in the KV cache, of all it was given."""

    call: int
    slot: int
    to_prefill: int
    cached: int = 0
    group: int = 0
    paused: bool = False
    waiting: bool = False
    drafts: int = 0
    """How many tokens may be drafted in the next plan."""
    stops: tuple[int, ...] = ()
    """A chunk ends when so many tokens are cached, should it pass there."""
    runs: tuple[Run, ...] = ()
    """In order; none is cached in part if it is a whole one."""
    scored_rows: int = 0
    """Not 0: each of its prompt's tokens has an output, and a chunk at most so many of them."""

    @property
    def is_prefilling(self) -> bool:
        return self.cached < self.to_prefill

    @property
    def next_stop(self) -> int:
        """Where the next chunk of tokens must end at the latest."""
        most = self.cached + (self.scored_rows or self.to_prefill)
        stops = (*self.stops, *(run.start for run in self.runs), self.to_prefill, most)
        return min(stop for stop in stops if stop > self.cached)

    @property
    def run(self) -> Run | None:
        """What the next chunk is of, if it is embeddings."""
        return next((run for run in self.runs if run.start <= self.cached < run.end), None)


@dataclass(frozen=True, slots=True)
class Chunk:
    """`count` known tokens of a call from `start` on; an output follows the `last` one, or each
    of them if they are `scored`."""

    slot: int
    start: int
    count: int
    last: bool
    scored: bool = False

    @property
    def outputs(self) -> int:
        """How many of its tokens have one."""
        return self.count if self.scored else int(self.last)


@dataclass(frozen=True, slots=True)
class Plan:
    """One batch: a token for each slot of `decode` and room for its drafts, then the chunks."""

    decode: tuple[int, ...]
    chunks: tuple[Chunk, ...]
    drafts: tuple[int, ...] = ()
    """Parallel to `decode`; empty: none for anybody."""
    group: int = 0
    of_run: bool = False
    """Its one chunk is embeddings."""

    def __bool__(self) -> bool:
        return bool(self.decode or self.chunks)

    @property
    def tokens(self) -> int:
        """How many tokens the batch has at most."""
        return len(self.decode) + sum(self.drafts) + sum(chunk.count for chunk in self.chunks)

    def parts(self) -> list[Plan]:
        """The same work without drafts, one slot a plan."""
        alone = [Plan((slot,), (), (), self.group) for slot in self.decode]
        return alone + [Plan((), (chunk,), (), self.group, self.of_run) for chunk in self.chunks]


class Scheduler:
    """Owner of the seats. `batch_tokens` bounds a batch and must not be below `slots`."""

    def __init__(
        self, *, slots: int, batch_tokens: int, prompt_budget: int, is_strict: bool = True
    ) -> None:
        if batch_tokens < slots:
            raise ValueError(f"a batch of {batch_tokens} tokens cannot serve {slots} slots")
        self.prompt_budget = prompt_budget
        self._is_strict = is_strict
        self._seats: dict[int, Seat] = {}
        self._by_slot: dict[int, Seat] = {}
        self._slots = slots
        self._batch_tokens = batch_tokens
        self._turns: dict[int, int] = {}
        self._turn = 0
        self._after_run = False

    @property
    def has_work(self) -> bool:
        """Whether the next plan would not be empty."""
        return any(not (seat.paused or seat.waiting) for seat in self._seats.values())

    @property
    def cells_used(self) -> int:
        """Tokens in the KV cache, of all calls; shared ones count for each."""
        return sum(seat.cached for seat in self._seats.values())

    @property
    def has_free_slot(self) -> bool:
        """Whether `admit` would find room."""
        return len(self._seats) < self._slots

    def __iter__(self) -> Iterator[Seat]:
        return iter(tuple(self._seats.values()))

    def in_slot(self, slot: int) -> Seat:
        """Who sits in a slot that a plan names."""
        return self._by_slot[slot]

    def seat_of(self, call: int) -> Seat | None:
        """A call's seat; None: it has none."""
        return self._seats.get(call)

    def prefilling(self) -> list[Seat]:
        """The calls whose prompts are being worked on."""
        return [seat for seat in self._seats.values() if seat.is_prefilling and not seat.paused]

    def admit(
        self, call: int, to_prefill: int, *, slot: int, cached: int = 0, group: int = 0
    ) -> Seat:
        """Seat a call with so many (>= 1) known tokens, of which `cached` need no prefill."""
        if call in self._seats or slot in self._by_slot or not self.has_free_slot:
            raise ValueError(f"call {call} cannot have slot {slot}")
        if not 0 <= cached < to_prefill:
            raise ValueError(f"{cached} of {to_prefill} tokens cached: one must give an output")
        seat = Seat(call, slot, to_prefill, cached, group)
        self._seats[call] = self._by_slot[slot] = seat
        return seat

    def release(self, call: int) -> Seat | None:
        """Free a call's slot; None: it has none."""
        seat = self._seats.pop(call, None)
        if seat is not None:
            del self._by_slot[seat.slot]
        return seat

    def pause(self, call: int, *, paused: bool) -> None:
        """Leave a call out of the plans, or take it in again. Unknown calls have no effect."""
        seat = self._seats.get(call)
        if seat is not None:
            seat.paused = paused

    def plan(self) -> Plan:
        """The next batch. It counts only when `executed` says so."""
        active = [seat for seat in self._seats.values() if not (seat.paused or seat.waiting)]
        generating = sum(not seat.is_prefilling for seat in active)
        group = self._next_group(active)
        active = sorted((s for s in active if s.group == group), key=lambda seat: seat.slot)
        decode = [seat for seat in active if not seat.is_prefilling]
        runs = [seat for seat in active if seat.run]
        prompts = [seat for seat in active if seat.is_prefilling and not seat.run]
        if runs and not (self._after_run and (decode or prompts)):
            return self._plan_run(min(runs, key=lambda seat: seat.call), alone=not generating)
        room = self._batch_tokens - len(decode)
        slots = tuple(seat.slot for seat in decode)
        if not (prompts or runs):
            return Plan(slots, (), _drafts(decode, room), group)
        if generating:  # in another group, maybe: it waits for this batch all the same
            times = 1 if self._is_strict else max(len(prompts) // generating, 1)
            room = min(room, times * self.prompt_budget)
        return Plan(slots, _share(prompts, room), (), group)

    def executed(self, plan: Plan, drafted: Mapping[int, int] = NOTHING) -> None:
        """The batch is in the KV cache, with so many drafted tokens by slot."""
        for slot in plan.decode:
            self._by_slot[slot].cached += 1 + drafted.get(slot, 0)
        for chunk in plan.chunks:
            self._by_slot[chunk.slot].cached += chunk.count
        self.passed(plan)

    def passed(self, plan: Plan) -> None:
        """Its turn is over; if nothing else is said, nothing of it is in the KV cache."""
        self._turn += 1
        self._turns[plan.group] = self._turn
        self._after_run = plan.of_run

    def _plan_run(self, seat: Seat, *, alone: bool) -> Plan:
        """The first of the calls goes on with its run; `alone`: nobody generates."""
        run = present(seat.run)
        count = run.end - seat.cached
        if not run.whole:
            count = min(count, self._batch_tokens)
            count = count if alone else min(count, self.prompt_budget)
        last = seat.cached + count == seat.to_prefill
        chunk = Chunk(seat.slot, seat.cached, count, last)
        return Plan((), (chunk,), (), seat.group, of_run=True)

    def _next_group(self, active: list[Seat]) -> int:
        """The group whose last turn is the longest ago."""
        groups = {seat.group for seat in active}
        self._turns = {group: self._turns.get(group, 0) for group in groups}
        return min(groups, key=lambda group: (self._turns[group], group), default=0)


def _drafts(decode: list[Seat], room: int) -> tuple[int, ...]:
    """What the batch has room for, the lowest slots first; empty if nobody wants any."""
    drafts: list[int] = []
    for seat in decode:
        drafts.append(min(seat.drafts, room))
        room -= drafts[-1]
    return tuple(drafts) if any(drafts) else ()


def _share(prompts: list[Seat], room: int) -> tuple[Chunk, ...]:
    """Split `room` evenly; what the nearly finished do not need goes to the others."""
    chunks: list[Chunk] = []
    by_need = sorted(prompts, key=lambda seat: (seat.next_stop - seat.cached, seat.slot))
    for waiting, seat in zip(range(len(by_need), 0, -1), by_need, strict=True):
        need = seat.next_stop - seat.cached
        # rounded up: with less room than prompts the shortest ones go first
        count = min(need, -(-room // waiting))
        if count > 0:
            last = seat.cached + count == seat.to_prefill
            chunks.append(Chunk(seat.slot, seat.cached, count, last, seat.scored_rows > 0))
            room -= count
    return tuple(sorted(chunks, key=lambda chunk: chunk.slot))
