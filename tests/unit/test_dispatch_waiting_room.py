"""Order and bounds of those who wait."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from balancer.dispatch.waiting_room import OnChange, WaitingRoom
from balancer.policy.fairness import Shares
from balancer.policy.holds import Demand
from balancer.settings import LiveSettings, Settings


class Guest(Struct, frozen=True):
    ordinal: int
    queue: str = "demo"
    body_bytes: int = 10
    tenant: str = "one"
    has_begun: bool = False
    length: int = 0

    @property
    def rank(self) -> tuple[int, int]:
        return int(not self.has_begun), self.ordinal


def room(
    max_waiting: int = 100,
    max_bytes: int = 10_000,
    *,
    max_of_tenant: int = 100,
    shares: Shares | None = None,
    on_change: OnChange = lambda *_: None,
) -> WaitingRoom[Guest]:
    return WaitingRoom(
        settings=LiveSettings(
            Settings(
                max_waiting=max_waiting,
                max_waiting_of_tenant=max_of_tenant,
                max_waiting_bytes=max_bytes,
            )
        ),
        shares=shares or Shares(),
        on_change=on_change,
    )


def served(rooms: WaitingRoom[Guest], *queues: str) -> list[int]:
    order = []
    while guest := rooms.first(queues):
        rooms.leave(guest)
        order.append(guest.ordinal)
    return order


def test_who_comes_first_is_served_first_over_all_the_names_of_an_agent() -> None:
    rooms = room()
    for ordinal, queue in enumerate(["a", "b", "c", "a", "b"]):
        rooms.enter(Guest(ordinal, queue))
    assert served(rooms, "a", "b") == [0, 1, 3, 4]
    assert served(rooms, "c") == [2]


def test_it_is_bounded_by_count_and_by_bytes() -> None:
    few = room(max_waiting=1)
    assert few.has_room(10)
    few.enter(Guest(1))
    assert not few.has_room(10)
    small = room(max_bytes=25)
    small.enter(Guest(1))
    assert small.has_room(15)
    assert not small.has_room(16)


def test_its_bounds_are_those_in_force_and_nobody_has_to_leave() -> None:
    live = LiveSettings(Settings(max_waiting=2, max_waiting_of_tenant=2))
    rooms: WaitingRoom[Guest] = WaitingRoom(
        settings=live, shares=Shares(), on_change=lambda *_: None
    )
    rooms.enter(Guest(0))
    rooms.enter(Guest(1))
    live.replace(Settings(max_waiting=1, max_waiting_of_tenant=3))
    assert (len(rooms), rooms.has_room(0), rooms.has_room_for("one")) == (2, False, True)
    live.replace(Settings(max_waiting=3, max_waiting_bytes=29, max_waiting_of_tenant=2))
    assert (rooms.has_room(9), rooms.has_room(10), rooms.has_room_for("one")) == (
        True,
        False,
        False,
    )


def test_leaving_twice_is_leaving_once() -> None:
    rooms = room()
    guest = Guest(1)
    assert not rooms.leave(guest)
    rooms.enter(guest)
    rooms.enter(Guest(2))
    assert rooms.leave(guest)
    assert not rooms.leave(guest)
    assert (len(rooms), rooms.waiting_bytes, rooms.length_of("demo")) == (1, 10, 1)


@given(st.permutations(list(range(8))), st.sets(st.integers(0, 7)))
def test_whoever_returns_stands_where_its_age_puts_it(order: list[int], gone: set[int]) -> None:
    rooms = room()
    for ordinal in order:
        rooms.enter(Guest(ordinal))
    for ordinal in gone:
        rooms.leave(Guest(ordinal))
    assert [guest.ordinal for guest in rooms.all_of("demo")] == sorted(set(range(8)) - gone)
    for ordinal in gone:
        rooms.enter(Guest(ordinal))
    assert served(rooms, "demo") == list(range(8))


def test_it_is_bounded_for_each_tenant() -> None:
    rooms = room(max_of_tenant=2)
    for ordinal in range(2):
        rooms.enter(Guest(ordinal, tenant="greedy"))
    assert (rooms.has_room_for("greedy"), rooms.has_room_for("other")) == (False, True)
    rooms.leave(Guest(0, tenant="greedy"))
    assert rooms.has_room_for("greedy")


def test_the_tenant_that_was_served_least_comes_first_whatever_its_age() -> None:
    shares = Shares()
    rooms = room(shares=shares)
    for ordinal in range(4):
        rooms.enter(Guest(ordinal, tenant="a"))
    rooms.enter(Guest(4, tenant="b"))
    shares.charge("a", 5.0)
    assert served(rooms, "demo") == [4, 0, 1, 2, 3]


def test_what_has_begun_comes_before_everyone() -> None:
    shares = Shares()
    rooms = room(shares=shares)
    rooms.enter(Guest(1, tenant="b"))
    rooms.enter(Guest(7, tenant="a", has_begun=True))
    rooms.enter(Guest(5, tenant="a"))
    shares.charge("a", 1000.0)
    assert served(rooms, "demo") == [7, 1, 5]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=20),
    st.lists(st.floats(1, 100), min_size=20, max_size=20),
)
def test_all_in_order_are_those_whose_turn_it_is_one_after_the_other(
    guests: list[tuple[str, bool]], costs: list[float]
) -> None:
    orders = []
    for one_by_one in (True, False):
        shares = Shares()
        rooms = room(shares=shares)
        order: list[int] = []
        for ordinal, (tenant, has_begun) in enumerate(guests):
            rooms.enter(Guest(ordinal, tenant=tenant, has_begun=has_begun))

        def serve(
            guest: Guest,
            rooms: WaitingRoom[Guest] = rooms,
            shares: Shares = shares,
            order: list[int] = order,
        ) -> None:
            rooms.leave(guest)
            shares.charge(guest.tenant, costs[len(order)])
            order.append(guest.ordinal)

        if one_by_one:
            while guest := rooms.first(("demo",)):
                serve(guest)
        else:
            for guest in rooms.in_order(("demo",)):
                serve(guest)
        orders.append(order)
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == list(range(len(guests)))


def test_every_change_is_told() -> None:
    told: list[tuple[int, int]] = []
    rooms = room(on_change=lambda *counts: told.append(counts))
    rooms.enter(Guest(1))
    rooms.leave(Guest(1))
    assert told == [(1, 10), (0, 0)]


# --- who comes before whom ---


def a_second_each(demand: Demand) -> float:
    """What requests are expected to take in these tests."""
    return float(demand.count)


def test_the_expected_order_goes_on_charging_whoever_is_served() -> None:
    rooms = room()
    for ordinal in range(4):
        rooms.enter(Guest(ordinal, tenant="crowd"))
    for ordinal in (4, 5):
        rooms.enter(Guest(ordinal, tenant="late"))
    expected = list(rooms.expected_order("demo", a_second_each))
    assert [guest.ordinal for guest, _ in expected] == [0, 4, 1, 5, 2, 3]
    assert [ahead.requests for _, ahead in expected] == list(range(6))
    assert [ahead.work_s for _, ahead in expected] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_what_has_begun_is_expected_first() -> None:
    rooms = room()
    for ordinal in (1, 2, 3):
        rooms.enter(Guest(ordinal, tenant="a"))
    rooms.enter(Guest(9, tenant="a", has_begun=True))
    rooms.enter(Guest(8, tenant="b", has_begun=True))
    rooms.enter(Guest(10, tenant="b"))
    order = [guest.ordinal for guest, _ in rooms.expected_order("demo", a_second_each)]
    assert order == [8, 9, 1, 10, 2, 3]


def test_nobody_is_expected_where_nobody_waits() -> None:
    assert list(room().expected_order("demo", a_second_each)) == []
    assert room().ahead_of("demo", "one", a_second_each) == (0, 0.0)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=20),
    st.sampled_from("abcd"),
)
def test_a_newcomer_finds_before_it_whom_it_would_stand_behind(
    guests: list[tuple[str, int]], tenant: str
) -> None:
    shares = Shares()
    rooms = room(shares=shares)
    for ordinal, (other, given_s) in enumerate(guests):
        rooms.enter(Guest(ordinal, tenant=other))
        shares.charge(other, 1000.0 * given_s)
    said = rooms.ahead_of("demo", tenant, a_second_each)
    newcomer = Guest(len(guests), tenant=tenant)
    rooms.enter(newcomer)
    (found,) = (
        ahead for guest, ahead in rooms.expected_order("demo", a_second_each) if guest is newcomer
    )
    assert said == found


def test_a_short_request_stands_behind_few_long_ones_of_a_crowd() -> None:
    shares = Shares()
    rooms = room(shares=shares)
    for ordinal in range(50):
        rooms.enter(Guest(ordinal, tenant="crowd", body_bytes=100))
    shares.starts("crowd", 10_000.0)
    assert rooms.ahead_of("demo", "lonely", lambda demand: demand.body_bytes) == (0, 0.0)
    rooms.enter(Guest(60, tenant="lonely", body_bytes=1))
    assert rooms.ahead_of("demo", "lonely", lambda demand: demand.body_bytes) == (1, 1.0)


def test_of_very_many_tenants_some_stand_for_all() -> None:
    rooms, looked_at = room(max_waiting=1000), list[Demand]()

    def seconds(demand: Demand) -> float:
        looked_at.append(demand)
        return 2.0 * demand.count

    for ordinal in range(500):
        rooms.enter(Guest(ordinal, tenant=f"tenant-{ordinal}"))
    assert rooms.ahead_of("demo", "tenant-3", seconds) == (500, 1000.0)
    assert rooms.ahead_of("demo", "new", seconds) == (500, 1000.0)
    assert len(looked_at) < 250
