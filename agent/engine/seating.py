"""Which calls have a place in the KV cache: seats, waits for a prefix, giving way and coming back.

A call is seated, or *suspended*: others needed its cells (unified cache only), it comes back when
there is room. Seated ones may wait for another call that is prefilling what both begin with.
"""

from __future__ import annotations

from collections.abc import Callable

from agent.engine.call import NO_TOKENS, Call
from agent.engine.context_shift import dropped
from agent.engine.frames import CallProgress
from agent.engine.kv_store import Claim, KvStore
from agent.engine.llama.adapters import AdapterSet
from agent.engine.pace import Pace
from agent.engine.scheduler import Plan, Scheduler, Seat
from agent.engine.speculation import Speculation
from protocol.invariants import present

USUAL_OUTPUT_TOKENS = 64.0
"""What calls are expected to generate before any has ended."""
_NEW_SHARE = 0.1
QUIET_TURNS = 16
"""So long after all slots were busy nothing is drafted: under load the next call comes at once."""
MAX_GROUPS = 1024
"""Adapter sets that are remembered; past it those without a call are forgotten."""


class Seating:
    """Owner of the calls. The scheduler has those that are seated."""

    def __init__(
        self,
        scheduler: Scheduler,
        store: KvStore,
        *,
        slots: int,
        speculation: Callable[[Call, int], Speculation | None],
    ) -> None:
        self._speculation = speculation
        self.calls: dict[int, Call] = {}
        self.scheduler = scheduler
        self._store = store
        self._slots = slots
        self._suspended: list[Call] = []
        self._may_have_room = False
        """For a suspended call: something happened since the last one was tried in vain."""
        self._waiting: list[Call] = []
        self._groups: dict[AdapterSet, int] = {(): 0}
        self._shifting: set[Call] = set()
        """The seated ones that go on when their share of the context is full."""
        self._usual_output = USUAL_OUTPUT_TOKENS
        self._quiet_turns = 0
        """For so many more nothing is drafted."""

    @property
    def has_work(self) -> bool:
        """Whether a plan would hold something, now or once there is room."""
        return self.scheduler.has_work or any(not call.paused for call in self._suspended)

    def is_full(self, *, promised: int) -> bool:
        """Whether a new call would find no slot; so many are promised to calls that are not here
        yet. Those that gave way come first, and while they are paused they still hold theirs."""
        taken = len(self.calls) + promised
        return taken >= self._slots or any(not call.paused for call in self._suspended)

    @property
    def waiting(self) -> tuple[int, ...]:
        """The calls that stand still for others: they gave way, or others compute their prefix.

        Not where that other is a prompt that is kept warm: the balancer knows of no such call, and
        could not see it go on. Its progress is told as theirs.
        """
        standing = [call for call in self._waiting if not self._waits_for_warming(call)]
        return tuple(call.number for call in (*self._suspended, *standing))

    def progress(self) -> tuple[CallProgress, ...]:
        """How far the prompts are that are being worked on; those of waits that are just over are
        told with the next plan, which takes over what is there."""
        return tuple(
            CallProgress(seat.call, self._done(seat), seat.to_prefill)
            for seat in self.scheduler.prefilling()
            if not seat.waiting or self.calls[seat.call].wait_for in self.calls
        )

    def adapters_of(self, group: int) -> AdapterSet:
        """What a plan's group decodes with."""
        return next(adapters for adapters, number in self._groups.items() if number == group)

    def seat(self, call: Call) -> bool:
        """Find a place for a call; False: there is none now."""
        prefilling = {
            seat.slot: seat.call for seat in self.scheduler.prefilling() if not seat.waiting
        }
        left = call.max_tokens - call.generation.tokens_generated
        claim = self._store.claim(
            call.scope,
            call.known,
            prefilling=frozenset(prefilling),
            expected=int(min(left, self._usual_output)),
            with_warm=call.finds_warm,
        )
        if claim is None:
            return False
        self._take(call, claim, prefilling)
        return True

    def leave(self, call: Call) -> None:
        """A call is over; its tokens stay cached."""
        self._may_have_room = True
        del self.calls[call.number]
        self._shifting.discard(call)
        if call in self._suspended:
            self._suspended.remove(call)
        if call in self._waiting:
            self._waiting.remove(call)
        seat = self.scheduler.release(call.number)
        if seat is not None:
            content = NO_TOKENS if call.leaves_nothing else call.content(seat.cached)
            self._store.release(call.number, seat.slot, content)
        generated = call.generation.tokens_generated
        if call.generation.finish_reason is not None:  # its own end, not a client's that left
            self._usual_output += _NEW_SHARE * (generated - self._usual_output)

    def pause(self, call: Call, *, paused: bool) -> None:
        """Give a call no tokens, or go on with it."""
        self._may_have_room = True
        call.paused = paused
        self.scheduler.pause(call.number, paused=paused)

    def plan(self, *, drafts: bool) -> Plan:
        """The next batch; in a unified cache calls give way until there are cells for it."""
        # a try costs 0.1 ms and more, and the cells of running calls only get more
        if self._suspended and (self._may_have_room or not self.scheduler.has_work):
            self._take_up_suspended()
        if self._waiting:
            self._settle_waits()
        if self._shifting:
            self._shift_those_full()
        if drafts:
            self._allow_drafts()
        plan = self.scheduler.plan()
        while plan and not self._store.make_room(plan.tokens) and self.suspend_one():
            plan = self.scheduler.plan()
        return plan

    def goes_on(self, plan: Plan, *, drafts: bool) -> bool:
        """Whether the next plan is this one again, as long as no call comes, ends or is paused."""
        if plan.chunks or plan.drafts or self._suspended or self._waiting or self._shifting:
            return False
        active = [seat for seat in self.scheduler if not seat.paused]
        # those of another group wait for their turn
        if len(plan.decode) != len(active):
            return False
        is_full = Pace.is_full(busy_slots=len(active), slots=self._slots)
        return is_full or not (drafts and any(self.calls[one.call].speculation for one in active))

    def suspend_one(self) -> bool:
        """Take the cells of the call that matters least; False: there is only one.

        Paused ones first, then by priority, the youngest first.
        """
        seats = list(self.scheduler)
        if len(seats) < 2:
            return False
        self._suspend(min(seats, key=self._importance))
        return True

    def _suspend(self, seat: Seat) -> None:
        call = self.calls[seat.call]
        self.scheduler.release(call.number)
        call.finds_its_own = call.finds_its_own or seat.cached > call.cached_tokens
        self._store.suspend(call.number, seat.slot, call.content(seat.cached))
        call.start_over()
        if call in self._waiting:
            self._waiting.remove(call)
        self._suspended.append(call)

    def _importance(self, seat: Seat) -> tuple[bool, int, float]:
        call = self.calls[seat.call]
        return not seat.paused, call.priority, -call.started

    def _take(self, call: Call, claim: Claim, prefilling: dict[int, int]) -> None:
        seat = self.scheduler.admit(
            call.number,
            len(call.known),
            slot=claim.sequence,
            cached=claim.cached,
            group=self._group(call.adapters),
        )
        seat.paused = call.paused
        seat.stops = claim.stops
        seat.scored_rows = call.scored_rows
        call.speculation = self._speculation(call, seat.slot)
        seat.runs = call.media.runs if call.media is not None else ()
        call.found(claim.cached)
        if call.shifts:
            self._shifting.add(call)
        if claim.wait_for is not None:
            seat.waiting = True
            donor = self.scheduler.in_slot(claim.wait_for)
            donor.stops = (*donor.stops, *claim.donor_stops)
            call.wait_for, call.wait_tokens = prefilling[claim.wait_for], claim.wait_tokens
            self._waiting.append(call)

    def _group(self, adapters: AdapterSet) -> int:
        if adapters not in self._groups and len(self._groups) >= MAX_GROUPS:
            used = {call.adapters for call in self.calls.values()} | {()}
            self._groups = {one: number for one, number in self._groups.items() if one in used}
        return self._groups.setdefault(adapters, max(self._groups.values()) + 1)

    def _settle_waits(self) -> None:
        """Whose prefix is there, or will not come any more, goes on with what there is."""
        still = []
        for call in self._waiting:
            seat = present(self.scheduler.seat_of(call.number))
            if self._is_coming(call):
                still.append(call)
                continue
            seat.cached = self._store.settle(
                seat.slot, call.known, seat.cached, with_warm=call.finds_warm
            )
            seat.waiting = False
            call.found(seat.cached)
        self._waiting = still

    def _is_coming(self, call: Call) -> bool:
        """Whether what a call waits for is still being prefilled."""
        donor = self.scheduler.seat_of(call.wait_for)
        return (
            donor is not None
            and not donor.paused
            and donor.is_prefilling
            and donor.cached < call.wait_tokens
        )

    def _waits_for_warming(self, call: Call) -> bool:
        donor = self.calls.get(call.wait_for)
        return donor is not None and donor.is_warming

    def _done(self, seat: Seat) -> int:
        """Tokens of a prompt that are there, or computed for it by one that is kept warm."""
        call = self.calls[seat.call]
        donor = self.scheduler.seat_of(call.wait_for)
        if donor is None or not seat.waiting or not self._waits_for_warming(call):
            return seat.cached
        return max(seat.cached, min(donor.cached, call.wait_tokens))

    def _take_up_suspended(self) -> None:
        """Those that gave way go on as soon as there is room, the most important first.

        Paused calls give way to them: else nobody would decode, however long the pause.
        """
        self._may_have_room = False
        self._suspended.sort(key=lambda call: (call.paused, -call.priority, call.started))
        while self._suspended and not self._suspended[0].paused:
            if self.seat(self._suspended[0]):
                self._suspended.pop(0)
                continue
            paused = [seat for seat in self.scheduler if seat.paused]
            if not paused:
                return
            self._suspend(min(paused, key=self._importance))

    def _allow_drafts(self) -> None:
        seats = [seat for seat in self.scheduler if not (seat.paused or seat.waiting)]
        if Pace.is_full(busy_slots=len(seats), slots=self._slots):
            self._quiet_turns = QUIET_TURNS
        # beside a prompt the plan has no room for drafts
        is_quiet = self._quiet_turns > 0 or any(seat.is_prefilling for seat in seats)
        self._quiet_turns = max(self._quiet_turns - 1, 0)
        for seat in seats:
            seat.drafts = 0
            if not is_quiet:
                allowed = self.calls[seat.call].allowance(busy=len(seats), slots=self._slots)
                room = self._store.context_tokens - seat.cached - 1
                seat.drafts = max(min(allowed, room), 0)

    def _shift_those_full(self) -> None:
        """Whose share of the context is full drops its older tokens, if it asked for that."""
        for call in self._shifting:
            seat = present(self.scheduler.seat_of(call.number))
            if seat.cached == self._store.context_tokens:
                start, count = dropped(prompt_tokens=call.prompt_tokens, cached=seat.cached)
                call.drop(start, count)
                seat.cached -= count
                seat.to_prefill = seat.cached
                self._store.shift(seat.slot, start, count, seat.cached)
