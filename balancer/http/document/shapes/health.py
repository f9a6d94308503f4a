"""How the balancer is."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from balancer.http.traffic import Rate

Status = Literal["healthy", "degraded", "unhealthy", "draining"]


class BriefHealth(Struct, kw_only=True):
    """Liveness; `timestamp` is ISO 8601."""

    status: Status
    timestamp: str


class Services(Struct, kw_only=True):
    """The parts of the system."""

    balancer: Literal["healthy", "draining"]
    fleet: Status


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


class System(Struct, kw_only=True):
    """The balancer's host; null where it does not tell."""

    cpu_percent: float
    memory_percent: float | None
    memory_used_mb: int | None
    disk_percent: float


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
