"""Which tokens go into the next decode: slots, prompt chunks, pausing. Pure; knows no token.

A call sits in a slot from `admit` to `release`; the slot's number is its sequence id in the KV
cache. First it is in *prefill*: its known tokens (prompt, and on resume what was generated before)
go in chunk by chunk, the last with an output. From then on it is in *decode*: one token a step,
each with an output. A *paused* call keeps its slot and what it has in the cache, and is left out.

A batch holds the decode tokens first: running streams never wait for a prompt. What room is left,
at most `prompt_budget` tokens while others generate, is shared evenly among the prompts, so that
a short one is not stuck behind a long one. Lowest slots are given first: llama.cpp wants a batch's
sequence ids dense and low.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Seat:
    """One call in its slot. `cached` counts its tokens in the KV cache."""

    call: int
    slot: int
    to_prefill: int
    cached: int = 0
    paused: bool = False

    @property
    def is_prefilling(self) -> bool:
        return self.cached < self.to_prefill


@dataclass(frozen=True, slots=True)
class Chunk:
    """`count` known tokens of a call from `start` on; an output follows the `last` one."""

    slot: int
    start: int
    count: int
    last: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """One batch: a token for each slot of `decode`, then the chunks."""

    decode: tuple[int, ...]
    chunks: tuple[Chunk, ...]

    def __bool__(self) -> bool:
        return bool(self.decode or self.chunks)

    @property
    def outputs(self) -> tuple[int, ...]:
        """The slots that get an output, in the batch's order."""
        return self.decode + tuple(chunk.slot for chunk in self.chunks if chunk.last)

    def parts(self) -> list[Plan]:
        """The same work, one slot a plan."""
        alone = [Plan((slot,), ()) for slot in self.decode]
        return alone + [Plan((), (chunk,)) for chunk in self.chunks]


class Scheduler:
    """Owner of the slots. `batch_tokens` bounds a batch and must not be below `slots`."""

    def __init__(self, *, slots: int, batch_tokens: int, prompt_budget: int) -> None:
        if batch_tokens < slots:
            raise ValueError(f"a batch of {batch_tokens} tokens cannot serve {slots} slots")
        self._seats: dict[int, Seat] = {}
        self._slots: list[Seat | None] = [None] * slots
        self._batch_tokens = batch_tokens
        self._prompt_budget = prompt_budget

    @property
    def has_work(self) -> bool:
        """Whether the next plan would not be empty."""
        return any(not seat.paused for seat in self._seats.values())

    @property
    def cells_used(self) -> int:
        """Tokens in the KV cache, of all calls."""
        return sum(seat.cached for seat in self._seats.values())

    @property
    def has_free_slot(self) -> bool:
        """Whether `admit` would find a slot."""
        return len(self._seats) < len(self._slots)

    def in_slot(self, slot: int) -> Seat:
        """Who sits in a slot that a plan names."""
        seat = self._slots[slot]
        assert seat is not None
        return seat

    def prefilling(self) -> list[Seat]:
        """The calls whose prompts are being worked on."""
        return [seat for seat in self._seats.values() if seat.is_prefilling and not seat.paused]

    def admit(self, call: int, to_prefill: int) -> Seat | None:
        """Give the lowest free slot to a call with so many (>= 1) known tokens; None: all taken."""
        if call in self._seats or to_prefill < 1:
            raise ValueError(f"call {call} with {to_prefill} tokens cannot be admitted")
        slot = next((number for number, seat in enumerate(self._slots) if seat is None), None)
        if slot is None:
            return None
        seat = Seat(call, slot, to_prefill)
        self._seats[call] = self._slots[slot] = seat
        return seat

    def release(self, call: int) -> Seat | None:
        """Free a call's slot; None: it has none."""
        seat = self._seats.pop(call, None)
        if seat is not None:
            self._slots[seat.slot] = None
        return seat

    def pause(self, call: int, *, paused: bool) -> None:
        """Leave a call out of the plans, or take it in again. Unknown calls have no effect."""
        seat = self._seats.get(call)
        if seat is not None:
            seat.paused = paused

    def plan(self) -> Plan:
        """The next batch. It counts only when `executed` says so."""
        active = [seat for seat in self._slots if seat is not None and not seat.paused]
        decode = tuple(seat.slot for seat in active if not seat.is_prefilling)
        prompts = [seat for seat in active if seat.is_prefilling]
        room = self._batch_tokens - len(decode)
        if decode:
            room = min(room, self._prompt_budget)
        return Plan(decode, _share(prompts, room))

    def executed(self, plan: Plan) -> None:
        """The batch is in the KV cache."""
        for slot in plan.decode:
            self.in_slot(slot).cached += 1
        for chunk in plan.chunks:
            self.in_slot(chunk.slot).cached += chunk.count


def _share(prompts: list[Seat], room: int) -> tuple[Chunk, ...]:
    """Split `room` evenly; what the nearly finished do not need goes to the others."""
    chunks: list[Chunk] = []
    by_need = sorted(prompts, key=lambda seat: (seat.to_prefill - seat.cached, seat.slot))
    for waiting, seat in zip(range(len(by_need), 0, -1), by_need, strict=True):
        need = seat.to_prefill - seat.cached
        # rounded up: with less room than prompts the shortest ones go first
        count = min(need, -(-room // waiting))
        if count > 0:
            chunks.append(Chunk(seat.slot, seat.cached, count, last=count == need))
            room -= count
    return tuple(sorted(chunks, key=lambda chunk: chunk.slot))
