"""Series that are read where they are when somebody scrapes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

MAX_AGENT_LABELS = 256
"""Agents past this many are summed under the name `other`."""


class AgentSlots(Struct, frozen=True):
    """One agent's slots at the moment of a scrape."""

    agent: str
    total: int
    used: int


class LimitFigures(Struct, frozen=True, kw_only=True):
    """What is held for everybody's limits at the moment of a scrape."""

    entries: int
    """Requests that were let in and are not over."""
    reservations: int
    """That are not settled."""
    reserved_tokens: int
    leaked_reservations: int
    settled_tokens: int
    """Spent by everything that was settled."""
    tables: Mapping[str, int] = {}
    """Rows of the tables behind them."""
    refusals: Mapping[str, int] = {}
    """By the limit that would have been passed."""


class SlotsCollector(Collector):
    """Reads the slots, so that an agent that left leaves no series behind."""

    def __init__(self, read: Callable[[], Iterable[AgentSlots]]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        sums: dict[str, tuple[int, int]] = {}
        for slots in self._read():
            name = slots.agent if len(sums) < MAX_AGENT_LABELS else "other"
            total, used = sums.get(name, (0, 0))
            sums[name] = (total + slots.total, used + slots.used)
        total_family = GaugeMetricFamily(
            "paddler_agent_slots_total_count", "Slots that an agent has.", labels=["agent"]
        )
        used_family = GaugeMetricFamily(
            "paddler_agent_slots_used_count", "Slots that are claimed.", labels=["agent"]
        )
        for name, (total, used) in sums.items():
            total_family.add_metric([name], total)
            used_family.add_metric([name], used)
        return [total_family, used_family]


class LimitsCollector(Collector):
    """Reads what limits hold, so that counting costs a request nothing."""

    def __init__(self, read: Callable[[], LimitFigures]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        found = self._read()
        for name, what, value in (
            ("paddler_limited_requests", "Requests under limits that run.", found.entries),
            (
                "paddler_token_reservations",
                "Reservations of tokens that are not settled.",
                found.reservations,
            ),
            ("paddler_reserved_tokens", "Tokens that they promise.", found.reserved_tokens),
            (
                "paddler_leaked_reservations",
                "Reservations that were not settled although their request is over: always 0.",
                found.leaked_reservations,
            ),
        ):
            yield GaugeMetricFamily(name, what, value=value)
        yield CounterMetricFamily(
            "paddler_settled_tokens",
            "Tokens that were counted towards limits.",
            value=found.settled_tokens,
        )
        yield _by_name(
            GaugeMetricFamily(
                "paddler_limit_rows", "Rows of the tables of limits.", labels=["table"]
            ),
            found.tables,
        )
        yield _by_name(
            CounterMetricFamily(
                "paddler_limit_refusals", "Refused, by the limit in the way.", labels=["limit"]
            ),
            found.refusals,
        )


class CertificateCollector(Collector):
    """When the certificate ends; without one there is no series."""

    def __init__(self, read: Callable[[], float | None]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        ends_s = self._read()
        if ends_s is not None:
            yield GaugeMetricFamily(
                "paddler_tls_certificate_ends_seconds",
                "When the ports' certificate ends, in unix seconds.",
                value=ends_s,
            )


def _by_name(family: GaugeMetricFamily | CounterMetricFamily, values: Mapping[str, int]) -> Metric:
    for name, value in values.items():
        family.add_metric([name], value)
    return family
