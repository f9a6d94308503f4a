"""Who of those who wait is served next: the tenant that was served least. Pure.

Service is time that a tenant's calls held slots, as measured, over its weight. A call is charged
what calls usually take when it starts, so that nobody takes all slots before anything is measured,
and corrected to what it took when it ends. Who begins to wait is lifted to what the tenant had that
started last, before it started: idleness earns no credit, nobody owes for slots that no one else
wanted, and who asks for less than its share is served before those who ask for more (start-time
fair queueing, Goyal et al. 1996, with the measured service of Sheng et al., "Fairness in Serving
Large Language Models", OSDI 2024). docs/fairness.md derives the bound.
"""

from __future__ import annotations

from collections import Counter, OrderedDict

MOST_TENANTS = 10_000
"""Whose service is remembered, the latest; those who wait always."""


class Shares:
    """Services of tenants, in milliseconds of a slot over their weights."""

    def __init__(self, most_tenants: int = MOST_TENANTS) -> None:
        self._most_tenants = most_tenants
        self._service_ms: OrderedDict[str, float] = OrderedDict()
        self._waiting: Counter[str] = Counter()
        self._floor_ms = 0.0
        """What the tenant that started last had before; it never falls."""

    def begins_to_wait(self, tenant: str) -> None:
        """One more request of this tenant waits."""
        if tenant in self._waiting:
            self._waiting[tenant] += 1
            return
        self._waiting[tenant] = 1  # before it is set: who waits is not forgotten
        self._set(tenant, self.entry_ms(tenant))

    def waits_no_more(self, tenant: str) -> None:
        """One less, whatever became of it."""
        self._waiting[tenant] -= 1
        if not self._waiting[tenant]:
            del self._waiting[tenant]

    def starts(self, tenant: str, slot_ms: float, *, weight: float = 1.0) -> None:
        """A call of this tenant starts, and is charged what it will take as far as is known."""
        if tenant not in self._service_ms:
            self._set(tenant, self._floor_ms)
        self._floor_ms = max(self._floor_ms, self._service_ms[tenant])
        self.charge(tenant, slot_ms, weight=weight)

    def charge(self, tenant: str, slot_ms: float, *, weight: float = 1.0) -> None:
        """A call took so much longer, or less, than it was charged."""
        self._set(tenant, self.service_ms(tenant) + slot_ms / weight)

    def service_ms(self, tenant: str) -> float:
        """What the tenant was given; one never heard of has what whoever started last had."""
        return self._service_ms.get(tenant, self._floor_ms)

    def entry_ms(self, tenant: str) -> float:
        """What the tenant has once it waits: its own, lifted to the floor.

        Not to the least of those who wait: that is the floor and what the last start was charged,
        so whoever sends one short request after the other would stand behind each time.
        """
        return max(self.service_ms(tenant), self._floor_ms)

    def _set(self, tenant: str, service_ms: float) -> None:
        self._service_ms[tenant] = service_ms
        self._service_ms.move_to_end(tenant)
        while len(self._service_ms) > self._most_tenants:
            oldest = next((one for one in self._service_ms if one not in self._waiting), None)
            if oldest is None:
                return
            del self._service_ms[oldest]
