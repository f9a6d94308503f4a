"""How the balancer is."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from balancer.observability.series import SeriesView

Status = Literal["healthy", "degraded", "unhealthy", "draining"]


class BriefHealth(Struct, kw_only=True):
    """Liveness; `timestamp` is ISO 8601."""

    status: Status
    timestamp: str


class Services(Struct, kw_only=True):
    """The parts of the system."""

    balancer: Literal["healthy", "draining"]
    fleet: Status
    audit: Literal["healthy", "failing"]
    """Failing: the audit log cannot be written now."""


class Providers(Struct, kw_only=True):
    """Agents by state."""

    total: int
    healthy: int
    degraded: int
    unhealthy: int
    disabled: int


class Load(Struct, kw_only=True):
    """Requests now."""

    in_flight: int
    waiting: int


class Rate(Struct, kw_only=True):
    """Of what takes work: answers of the last minute, zeros without any; requests in a second."""

    avg_response_time_ms: float
    requests_per_second: float


class System(Struct, kw_only=True):
    """The balancer's host; null where it does not tell."""

    cpu_percent: float | None
    memory_percent: float | None
    memory_used_mb: int | None
    disk_percent: float | None


class Alerts(Struct, kw_only=True):
    """Issues of agents."""

    active: int
    critical: int
    warning: int


class DetailedHealth(BriefHealth, kw_only=True):
    """Every component, the fleet, the host and the last minute's traffic."""

    services: Services
    performance: Rate
    health_score: int
    response_time: float
    providers: Providers
    requests: Load
    system: System
    alerts: Alerts


class Readiness(Struct, kw_only=True):
    """Whether at least one model can be served."""

    status: Literal["ready", "not_ready", "draining"]
    reason: str | UnsetType = UNSET


class ProviderTotals(Struct, kw_only=True):
    """What became of the generations of one agent; zeros where there were none. The time is in
    seconds."""

    total_requests: int
    successful_requests: int
    failed_requests: int
    success_rate: float
    avg_response_time: float
    total_tokens: int


class Summary(Struct, kw_only=True):
    """Of all agents."""

    total_providers: int
    total_requests: int
    average_success_rate: float


class MetricsTotals(Struct, kw_only=True):
    """The metrics as JSON."""

    timestamp: str
    providers: dict[str, ProviderTotals]
    summary: Summary


class Series(SeriesView, frozen=True, kw_only=True):
    """The past of some figures."""

    object: Literal["series"]
