"""GET /health, /ready and /metrics: how the balancer is, in three tongues."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from math import ceil
from pathlib import Path
from typing import Any

import msgspec
from aiohttp.web import Response, StreamResponse

from balancer.fleet.snapshot import AgentSnapshot, AgentState
from balancer.http.answers import SECURITY_HEADERS, json_answer, value_answer
from balancer.http.exchange import Exchange, Wiring
from balancer.http.iso_time import iso_time
from balancer.observability.metrics import CONTENT_TYPE

_MEMORY_LINE_KIB = 1024
_SERVING: tuple[AgentState, ...] = ("ready", "busy")


async def brief_health(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """Liveness, without details unless they are asked for. Always 200: the process answers."""
    if exchange.wants("detailed"):
        return await detailed_health(exchange, wiring)
    agents = wiring.roster.snapshot()
    brief = {"status": _status(agents, wiring), "timestamp": iso_time(time.time())}
    return value_answer(exchange, brief)


async def detailed_health(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """Liveness with every component, the fleet, the host and the last minute's traffic."""
    agents = wiring.roster.snapshot()
    states = Counter(agent.state for agent in agents)
    issues = Counter(issue.severity for agent in agents for issue in agent.issues)
    healthy = sum(agent.state in _SERVING and not agent.issues for agent in agents)
    serving = sum(states[state] for state in _SERVING)
    status = _status(agents, wiring)
    detailed = {
        "status": status,
        "timestamp": iso_time(time.time()),
        "services": {
            "balancer": "draining" if wiring.is_draining() else "healthy",
            "fleet": status,
        },
        "performance": wiring.traffic.rate(now_s=time.monotonic()),
        "health_score": round(100 * healthy / len(agents)) if agents else 0,
        "response_time": round(exchange.elapsed_s, 6),
        "providers": {
            "total": len(agents),
            "healthy": healthy,
            "degraded": serving - healthy,
            "unhealthy": states["not_ready"],
            "disabled": states["draining"],
        },
        "requests": {
            "in_flight": wiring.dispatcher.in_flight,
            "waiting": wiring.dispatcher.waiting,
        },
        "system": _system(),
        "alerts": {
            "active": issues.total(),
            "critical": issues["error"],
            "warning": issues["warning"],
        },
    }
    return value_answer(exchange, detailed)


async def ready(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """200 while at least one model can be served, else 503."""
    if wiring.is_draining():
        return _not_ready(exchange, wiring, {"status": "draining"})
    if any(agent.state in _SERVING for agent in wiring.roster.snapshot()):
        return value_answer(exchange, {"status": "ready"})
    reason = "no agent can serve a model yet"
    return _not_ready(exchange, wiring, {"status": "not_ready", "reason": reason})


def _not_ready(exchange: Exchange, wiring: Wiring, value: dict[str, str]) -> StreamResponse:
    """503; looking again makes sense after a heartbeat."""
    retry_after_s = max(1, ceil(wiring.settings.heartbeat_interval_s))
    headers = {"Retry-After": str(retry_after_s)}
    return json_answer(exchange, msgspec.json.encode(value), status=503, headers=headers)


async def metrics_text(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """Everything in Prometheus' text format."""
    headers = {**SECURITY_HEADERS, **exchange.headers(), "Content-Type": CONTENT_TYPE}
    return Response(body=wiring.metrics.text(), headers=headers)


def _status(agents: list[AgentSnapshot], wiring: Wiring) -> str:
    """Degraded is a fleet that serves with issues; unhealthy one that cannot serve at all."""
    if wiring.is_draining():
        return "draining"
    serving = [agent for agent in agents if agent.state in _SERVING]
    if not serving:
        return "unhealthy"
    return "healthy" if len(serving) == len(agents) and not _have_issues(agents) else "degraded"


def _have_issues(agents: list[AgentSnapshot]) -> bool:
    return any(agent.issues for agent in agents)


def _system() -> dict[str, Any]:
    """The balancer's host; null where the system does not tell."""
    memory = _memory_kib()
    total, available = memory.get("MemTotal", 0), memory.get("MemAvailable", 0)
    used = total - available
    disk = shutil.disk_usage("/")
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    return {
        "cpu_percent": round(min(100.0, 100 * load), 1),
        "memory_percent": round(100 * used / total, 1) if total else None,
        "memory_used_mb": used // _MEMORY_LINE_KIB if total else None,
        "disk_percent": round(100 * disk.used / disk.total, 1),
    }


def _memory_kib() -> dict[str, int]:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return {line.partition(":")[0]: int(line.split()[1]) for line in lines}
    except (OSError, ValueError, IndexError):
        return {}
