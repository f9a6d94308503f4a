"""Order and bounds of those who wait."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from balancer.dispatch.waiting_room import WaitingRoom


class Guest(Struct, frozen=True):
    ordinal: int
    queue: str = "demo"
    body_bytes: int = 10


def room(max_waiting: int = 100, max_bytes: int = 10_000) -> WaitingRoom[Guest]:
    return WaitingRoom(max_waiting=max_waiting, max_bytes=max_bytes, on_change=lambda *_: None)


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


def test_every_change_is_told() -> None:
    told: list[tuple[int, int]] = []
    rooms: WaitingRoom[Guest] = WaitingRoom(
        max_waiting=9, max_bytes=99, on_change=lambda *counts: told.append(counts)
    )
    rooms.enter(Guest(1))
    rooms.leave(Guest(1))
    assert told == [(1, 10), (0, 0)]
