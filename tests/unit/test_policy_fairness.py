"""Tenants share slots by the time that they were given; a small simulation, numbers only."""

from __future__ import annotations

import heapq

from hypothesis import given
from hypothesis import strategies as st

from balancer.policy.fairness import MOST_TENANTS, Shares


class Slots:
    """Slots under a virtual clock: calls start in the order of the shares."""

    def __init__(self, slots: int, *, estimate_ms: float) -> None:
        self.shares = Shares()
        self.given_ms: dict[str, float] = {}
        self.waited_ms: dict[str, list[float]] = {}
        self.now_ms = 0.0
        self._slots = slots
        self._estimate_ms = estimate_ms
        self._waiting: dict[str, list[tuple[float, float]]] = {}
        self._running: list[tuple[float, str, float]] = []

    def ask(self, tenant: str, took_ms: float) -> None:
        self.shares.begins_to_wait(tenant)
        self._waiting.setdefault(tenant, []).append((self.now_ms, took_ms))
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
            since_ms, took_ms = self._waiting[tenant].pop(0)
            self.shares.waits_no_more(tenant)
            self.shares.starts(tenant, self._estimate_ms)
            self.waited_ms.setdefault(tenant, []).append(self.now_ms - since_ms)
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
    bound = (3 * slots + 1) * max(*durations, estimate_ms)
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


def test_a_short_request_now_and_then_hardly_waits_for_a_crowd_of_long_ones() -> None:
    site = Slots(8, estimate_ms=5000.0)
    for _ in range(200):
        site.ask("crowd", 8000.0)
    for second in range(1, 100):
        site.go_on(1000.0 * second)
        site.ask("lonely", 200.0)
    waits = sorted(site.waited_ms["lonely"])
    assert waits[len(waits) // 2] <= 8000.0


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
    assert [shares.service_ms(str(number)) for number in range(4)] == [1.0, 3.0, 4.0, 5.0]
