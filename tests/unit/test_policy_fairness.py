"""Tenants share slots by the time that they were given; a small simulation, numbers only."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.policy.fairness import MOST_TENANTS, Shares
from tests.benchmarks.simulate.fairness import short_waits, two_crowds
from tests.benchmarks.simulate.site import Size
from tests.benchmarks.simulate.speed import Speed


class Slots:
    """Slots under a virtual clock: calls start in the order of the shares."""

    def __init__(self, slots: int, *, estimate_ms: float) -> None:
        self.shares = Shares()
        self.given_ms: dict[str, float] = {}
        self.now_ms = 0.0
        self._slots = slots
        self._estimate_ms = estimate_ms
        self._waiting: dict[str, list[float]] = {}
        self._running: list[tuple[float, str, float]] = []

    def ask(self, tenant: str, took_ms: float) -> None:
        self.shares.begins_to_wait(tenant)
        self._waiting.setdefault(tenant, []).append(took_ms)
        self._start()

    def go_on(self, until_ms: float) -> None:
        while self._running and self._running[0][0] <= until_ms:
            self.now_ms, tenant, took_ms = heapq.heappop(self._running)
            self.shares.charge(tenant, took_ms - self._estimate_ms)
            self.given_ms[tenant] = self.given_ms.get(tenant, 0.0) + took_ms
            self._start()
        self.now_ms = until_ms

    def _start(self) -> None:
        while len(self._running) < self._slots and any(self._waiting.values()):
            waiting = (tenant for tenant, calls in self._waiting.items() if calls)
            tenant = min(waiting, key=self.shares.service_ms)
            took_ms = self._waiting[tenant].pop(0)
            self.shares.waits_no_more(tenant)
            self.shares.starts(tenant, self._estimate_ms)
            heapq.heappush(self._running, (self.now_ms + took_ms, tenant, took_ms))


def test_short_and_long_calls_get_the_same_time_not_the_same_number() -> None:
    slots = Slots(4, estimate_ms=500.0)
    for _ in range(200):
        slots.ask("long", 1000.0)
        for _ in range(10):
            slots.ask("short", 100.0)
    slots.go_on(40_000.0)
    assert abs(slots.given_ms["long"] - slots.given_ms["short"]) <= 4 * 1000 + 500


@given(
    durations=st.lists(st.floats(10, 2000), min_size=2, max_size=6),
    slots=st.integers(1, 8),
    estimate_ms=st.floats(0, 3000),
)
def test_services_of_busy_tenants_differ_by_no_more_than_the_bound(
    durations: list[float], slots: int, estimate_ms: float
) -> None:
    site = Slots(slots, estimate_ms=estimate_ms)
    for number, took_ms in enumerate(durations):
        for _ in range(int(slots * 20_000 / took_ms) + 1):
            site.ask(f"tenant-{number}", took_ms)
    site.go_on(15_000.0)
    given_ms = [site.given_ms.get(f"tenant-{number}", 0.0) for number in range(len(durations))]
    bound = (3 * slots + 1) * max(*durations, estimate_ms)  # all are charged the same
    assert max(given_ms) - min(given_ms) <= bound


def test_who_used_slots_that_nobody_wanted_does_not_owe_for_it() -> None:
    site = Slots(1, estimate_ms=1000.0)
    for _ in range(50):
        site.ask("early", 1000.0)
        site.go_on(site.now_ms + 1000.0)
    for _ in range(20):
        site.ask("late", 1000.0)
    for _ in range(20):
        site.ask("early", 1000.0)
    site.go_on(site.now_ms + 20_000.0)
    assert abs(site.given_ms["early"] - 50_000.0 - site.given_ms["late"]) <= 2000.0


def test_idleness_earns_no_credit() -> None:
    site = Slots(2, estimate_ms=1000.0)
    for _ in range(400):
        site.ask("busy", 1000.0)
    site.go_on(100_000.0)
    for _ in range(100):
        site.ask("back", 1000.0)
    before_ms = site.given_ms["busy"]
    site.go_on(120_000.0)
    assert abs(site.given_ms["busy"] - before_ms - site.given_ms["back"]) <= 4000.0


@pytest.mark.parametrize("slots", [1, 4, 8])
def test_a_crowd_does_not_hold_up_who_sends_a_short_request_each_second(slots: int) -> None:
    speed = Speed(block_ms=40.0, token_ms=10.0, slot_ms=2.0)
    waits = short_waits(Size(slots=slots), speed, short_requests=400)
    assert 0 < waits.crowded_s <= 2 * waits.just_full_s


@pytest.mark.parametrize("slots", [1, 4])
def test_crowds_with_long_and_with_short_calls_are_given_the_same_within_the_bound(
    slots: int,
) -> None:
    speed = Speed(block_ms=40.0, token_ms=10.0, slot_ms=2.0)
    apart = two_crowds(Size(slots=slots), speed, for_s=300.0)
    assert 0 < apart.seconds <= apart.bound_s


def test_who_asks_for_less_than_its_share_is_served_before_a_crowd_each_time() -> None:
    shares = Shares()
    shares.begins_to_wait("crowd")
    for _ in range(3):
        shares.starts("crowd", 5000.0)
        shares.begins_to_wait("lonely")
        assert shares.service_ms("lonely") < shares.service_ms("crowd")
        shares.waits_no_more("lonely")
        shares.starts("lonely", 100.0)


def test_a_weight_of_two_gets_twice_as_much() -> None:
    shares = Shares()
    shares.starts("gold", 1000.0, weight=2.0)
    shares.starts("plain", 1000.0)
    assert (shares.service_ms("gold"), shares.service_ms("plain")) == (500.0, 1000.0)


def test_what_a_call_took_counts_after_its_tenant_is_gone() -> None:
    shares = Shares()
    shares.starts("gone", 10.0)
    shares.charge("gone", 90.0)
    assert shares.service_ms("gone") == 100.0


def test_tenants_are_remembered_up_to_a_bound_and_those_who_wait_always() -> None:
    shares = Shares()
    shares.begins_to_wait("patient")
    shares.charge("patient", 7.0)
    for number in range(MOST_TENANTS + 5):
        shares.starts(str(number), 1.0)
    assert len(shares._service_ms) == MOST_TENANTS
    assert shares.service_ms("patient") == 7.0


def test_of_tenants_who_wait_none_is_forgotten_however_many_they_are() -> None:
    shares = Shares(most_tenants=2)
    for number in range(4):
        shares.begins_to_wait(str(number))
        shares.charge(str(number), 1.0 + number)
    assert [shares.service_ms(str(number)) for number in range(4)] == [1.0, 2.0, 3.0, 4.0]
