"""What every bus promises, of one balancer and of two that share a store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.access import Limits
from balancer.cluster.bus import Bus, Entry, Reservation
from balancer.cluster.local import LocalBus
from balancer.policy.limits.amounts import DAY_S, MINUTE_S, Bound, Moment, Refusal
from tests.support.shared_bus import SharedBus, SharedReservation, SharedStore

NOON = 20_000 * DAY_S + DAY_S / 2
LIMIT = 100


def at(now_s: float) -> Moment:
    return Moment(now_s, NOON + now_s)


@dataclass
class Cluster:
    """Balancers, each with its bus."""

    buses: tuple[Bus, ...]
    deliver: Callable[[], None]
    """What the buses are told arrives."""


def one_balancer() -> Cluster:
    return Cluster((LocalBus(),), lambda: None)


def two_balancers() -> Cluster:
    store = SharedStore()
    return Cluster((SharedBus(store), SharedBus(store)), store.deliver)


CLUSTERS = pytest.mark.parametrize("build", [one_balancer, two_balancers])


def of(subject: str = "key a", **limits: int) -> Bound:
    return Bound(subject, Limits(**limits))


async def let_in(bus: Bus, *bounds: Bound, now_s: float = 0.0) -> Entry:
    found = await bus.enter(bounds, at(now_s))
    assert not isinstance(found, Refusal)
    return found


async def promised(entry: Entry, tokens: int, now_s: float = 0.0) -> Reservation:
    found = await entry.reserve(tokens, at(now_s))
    assert not isinstance(found, Refusal)
    return found


async def refusal(bus: Bus, *bounds: Bound, now_s: float = 0.0) -> Refusal:
    found = await bus.enter(bounds, at(now_s))
    assert isinstance(found, Refusal)
    return found


@CLUSTERS
async def test_all_bounds_let_a_request_in_or_none_counts_it(build: Callable[[], Cluster]) -> None:
    bus = build().buses[0]
    wide, narrow = of("key a", requests_per_minute=2), of("all of x", requests_per_minute=1)
    entry = await let_in(bus, wide, narrow)
    assert (await refusal(bus, wide, narrow)).subject == "all of x"
    standing = entry.requests_standing(at(0))
    assert standing is not None
    assert standing.remaining == 0
    await let_in(bus, wide)
    assert (await refusal(bus, wide)).subject == "key a"


@CLUSTERS
async def test_requests_that_come_at_once_never_get_more_places_than_there_are(
    build: Callable[[], Cluster],
) -> None:
    cluster = build()
    came = await asyncio.gather(
        *(bus.enter((of(concurrent=3),), at(0)) for bus in cluster.buses * 10)
    )
    entries = [one for one in came if not isinstance(one, Refusal)]
    assert len(entries) == 3
    for entry in entries:
        entry.leave(at(1))
        entry.leave(at(1))
    cluster.deliver()
    assert cluster.buses[0].figures().entries == 0
    await let_in(cluster.buses[-1], of(concurrent=3), now_s=1)


@CLUSTERS
async def test_requests_that_come_at_once_are_never_promised_more_than_the_limit(
    build: Callable[[], Cluster],
) -> None:
    cluster = build()
    entries = [await let_in(bus, of(tokens_per_minute=LIMIT)) for bus in cluster.buses * 10]
    found = await asyncio.gather(*(entry.reserve(15, at(0)) for entry in entries))
    promises = [one for one in found if not isinstance(one, Refusal)]
    assert 0 < 15 * len(promises) <= LIMIT
    for one in promises:
        one.settle(at(1), spent=5)
    cluster.deliver()
    figures = cluster.buses[0].figures()
    assert (figures.reservations, figures.reserved_tokens) == (0, 0)
    assert figures.settled_tokens == 5 * len(promises)


@CLUSTERS
async def test_what_is_settled_a_second_time_or_to_too_much_counts_as_promised(
    build: Callable[[], Cluster],
) -> None:
    cluster = build()
    entry = await let_in(cluster.buses[0], of(tokens_per_minute=LIMIT))
    reservation = await promised(entry, 20)
    reservation.settle(at(0), spent=10**6)
    reservation.settle(at(0), spent=10**6)
    cluster.deliver()
    assert cluster.buses[-1].figures().settled_tokens == 20
    assert entry.tokens_left(at(0)) == LIMIT - 20


@CLUSTERS
async def test_a_prompt_that_has_a_few_more_tokens_is_let_have_them_without_waiting(
    build: Callable[[], Cluster],
) -> None:
    cluster = build()
    entry = await let_in(cluster.buses[0], of(tokens_per_minute=LIMIT))
    assert entry.limits_tokens
    reservation = await promised(entry, 20)
    assert reservation.extend(3, at(0)) is None
    assert isinstance(reservation.extend(LIMIT, at(0)), Refusal)
    reservation.shrink(10)
    assert reservation.tokens == 13
    reservation.settle(at(0), spent=13)
    entry.leave(at(0))
    cluster.deliver()
    figures = cluster.buses[0].figures()
    assert (figures.settled_tokens, figures.leaked_reservations) == (13, 0)


def test_the_bus_of_one_balancer_answers_without_waiting() -> None:
    with pytest.raises(StopIteration) as entered:
        LocalBus().enter((of(tokens_per_minute=LIMIT),), at(0)).send(None)
    with pytest.raises(StopIteration):
        entered.value.value.reserve(1, at(0)).send(None)


async def test_who_is_cancelled_while_a_store_is_asked_has_taken_nothing() -> None:
    cluster = two_balancers()
    bus = cluster.buses[0]
    entry = await let_in(bus, of(tokens_per_minute=LIMIT))
    for asked in (bus.enter((of(concurrent=1),), at(0)), entry.reserve(LIMIT, at(0))):
        task = asyncio.ensure_future(asked)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    figures = bus.figures()
    assert (figures.entries, figures.reservations) == (1, 0)


async def test_a_store_that_is_away_leaves_every_balancer_to_its_own_counters() -> None:
    store = SharedStore()
    one, other = SharedBus(store), SharedBus(store)
    store.is_away = True
    for bus in (one, other):
        await let_in(bus, of(requests_per_minute=1))
        assert (await refusal(bus, of(requests_per_minute=1))).excess == "requests"


KINDS = ("come", "reserve", "extend", "shrink", "settle", "leave", "die", "wait", "deliver")
OFTEN = ("come", "reserve", "reserve", "settle", "leave")
STEPS = 200


@dataclass
class Held:
    """A request of one subject, and what it was promised."""

    subject: int
    entry: Entry
    promise: Reservation | None = None


@dataclass
class Play:
    """Whatever may happen, and what was seen of it from outside."""

    cluster: Cluster
    now_s: float = 0.0
    running: list[Held] = field(default_factory=list)
    settled: list[tuple[float, int, int]] = field(default_factory=list)
    """When, of which subject, how many."""

    async def step(self, kind: str, which: int, amount: int) -> None:
        """One thing happens."""
        if kind == "come":
            await self._come(which % 3, self.cluster.buses[which % len(self.cluster.buses)])
        elif kind == "wait":
            self.now_s += amount / (4 if which else 10_000)
        elif kind == "deliver":
            self.cluster.deliver()
        elif self.running:
            await self._go_on(kind, self.running[which % len(self.running)], amount)

    async def _come(self, subject: int, bus: Bus) -> None:
        everybody = of("all of x", tokens_per_minute=2 * LIMIT)
        own = of(f"key {subject}", tokens_per_minute=LIMIT, concurrent=4)
        found = await bus.enter((own, everybody), at(self.now_s))
        if not isinstance(found, Refusal):
            self.running.append(Held(subject, found))

    async def _go_on(self, kind: str, held: Held, amount: int) -> None:
        now, promise = at(self.now_s), held.promise
        if kind == "reserve" and promise is None:
            found = await held.entry.reserve(amount // 2, now)
            held.promise = None if isinstance(found, Refusal) else found
        elif kind == "leave":
            self._end(held, spent=amount)
        elif promise is None:
            return
        elif kind == "extend":
            promise.extend(amount // 8, now)
        elif kind == "shrink":
            promise.shrink(amount // 8)
        elif kind == "settle":
            self._settle(held, spent=amount)
        elif kind == "die" and isinstance(promise, SharedReservation):
            held.promise = None
            promise.expire(now)

    def _settle(self, held: Held, *, spent: int) -> None:
        promise, held.promise = held.promise, None
        if promise is not None:
            self.settled.append((self.now_s, held.subject, min(spent, promise.tokens)))
            promise.settle(at(self.now_s), spent=spent)

    def _end(self, held: Held, *, spent: int) -> None:
        self._settle(held, spent=spent)
        held.entry.leave(at(self.now_s))
        self.running.remove(held)

    def check(self) -> None:
        """No minute has too much, of anybody, with what is still promised."""
        lately = [one for one in self.settled if one[0] > self.now_s - MINUTE_S]
        promised = [(one.subject, one.promise.tokens) for one in self.running if one.promise]
        counted = [(subject, tokens) for _, subject, tokens in lately] + promised
        assert sum(tokens for _, tokens in counted) <= 2 * LIMIT
        for subject in range(3):
            assert sum(tokens for whose, tokens in counted if whose == subject) <= LIMIT

    def end(self) -> None:
        """All of it is over."""
        for held in tuple(self.running):
            self._end(held, spent=0)
        self.cluster.deliver()
        figures = self.cluster.buses[0].figures()
        assert (figures.entries, figures.reservations, figures.reserved_tokens) == (0, 0, 0)
        assert figures.leaked_reservations == 0


@CLUSTERS
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_whatever_happens_no_minute_has_too_many_tokens_and_nothing_stays_reserved(
    build: Callable[[], Cluster], seed: int
) -> None:
    dice, play = Random(seed), Play(build())

    async def whole() -> None:
        for _ in range(STEPS):
            await play.step(dice.choice(KINDS + OFTEN), dice.randrange(6), dice.randint(0, LIMIT))
            play.check()
        play.end()

    asyncio.run(whole())
    assert play.settled
