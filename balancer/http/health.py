"""GET /health, /ready, /metrics and /api/v1/status: how the balancer is, in three tongues."""

from __future__ import annotations

import time
from collections import Counter
from math import ceil
from typing import Any

import msgspec
from aiohttp.web import Response, StreamResponse

from balancer.fleet.snapshot import SERVING, AgentSnapshot
from balancer.http.answers import SECURITY_HEADERS, json_answer, value_answer
from balancer.http.calls import Call
from balancer.http.exchange import Exchange, Wiring
from balancer.http.faults import refuse_value
from balancer.http.iso_time import iso_time
from balancer.observability.metrics import CONTENT_TYPE
from balancer.policy.identity.principal import has_role

_PROVIDER_FIELDS = (
    "total_requests",
    "successful_requests",
    "failed_requests",
    "success_rate",
    "avg_response_time",
    "total_tokens",
)


async def brief_health(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """Liveness, without details unless they are asked for. Always 200: the process answers."""
    if exchange.wants("detailed"):
        if not _may_see_details(exchange, wiring):
            wiring.gate.require(exchange.principal, "admin", "the detailed health", of="health")
        return value_answer(exchange, await detailed_health(Call.of(exchange), wiring))
    agents = wiring.roster.snapshot()
    brief = {"status": status_of(agents, wiring), "timestamp": iso_time(time.time())}
    return value_answer(exchange, brief)


async def management_health(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """With every detail for operators, without for anybody else."""
    if not _may_see_details(exchange, wiring):
        return await brief_health(exchange, wiring)
    return value_answer(exchange, await detailed_health(Call.of(exchange), wiring))


def _may_see_details(exchange: Exchange, wiring: Wiring) -> bool:
    return wiring.gate.is_open or has_role(exchange.principal, "admin")


async def detailed_health(call: Call, wiring: Wiring) -> dict[str, Any]:
    """Liveness with every component, the fleet, the host and the last minute's traffic."""
    del call
    started_s = time.perf_counter()
    agents = wiring.roster.snapshot()
    issues = Counter(issue.severity for agent in agents for issue in agent.issues)
    status, tree = status_of(agents, wiring), wiring.samples.read()
    return {
        "status": status,
        "timestamp": iso_time(time.time()),
        "services": {
            "balancer": "draining" if wiring.is_draining() else "healthy",
            "fleet": status,
            "audit": "failing" if wiring.audit.fault else "healthy",
        },
        "performance": {
            "avg_response_time_ms": tree["latency"]["response_ms"] or 0.0,
            "requests_per_second": tree["requests"]["per_second"],
        },
        "health_score": _score(tree["agents"]),
        "response_time": round(time.perf_counter() - started_s, 6),
        "providers": tree["agents"],
        "requests": {
            "in_flight": tree["requests"]["in_flight"],
            "waiting": tree["requests"]["waiting"],
        },
        "system": tree["system"],
        "alerts": {
            "active": issues.total(),
            "critical": issues["error"],
            "warning": issues["warning"],
        },
    }


def _score(agents: dict[str, int]) -> int:
    """The share of agents that are healthy, in percent."""
    return round(100 * agents["healthy"] / agents["total"]) if agents["total"] else 0


async def ready(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """200 while at least one model can be served, else 503."""
    if wiring.is_draining():
        return _not_ready(exchange, wiring, {"status": "draining"})
    if any(agent.state in SERVING for agent in wiring.roster.snapshot()):
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


async def metrics(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """The same, or what became of each agent's requests as JSON. Raises `InvalidRequest`."""
    form = exchange.request.query.get("format")
    if form not in (None, "json", "prometheus"):
        raise refuse_value("format", form, "json or prometheus")
    if form == "json" or (form is None and _asks_for_json(exchange)):
        return value_answer(exchange, _totals(wiring))
    return await metrics_text(exchange, wiring)


def _asks_for_json(exchange: Exchange) -> bool:
    """Scrapers name types of text, browsers all kinds of things."""
    accepted = exchange.request.headers.get("Accept", "")
    types = {one.partition(";")[0].strip().lower() for one in accepted.split(",")}
    return "application/json" in types and not any(one.startswith("text/") for one in types)


def _totals(wiring: Wiring) -> dict[str, Any]:
    """Numbers throughout, as programs calculate with them: 0 where there were no requests."""
    providers = {
        name: {key: row[key] or 0 for key in _PROVIDER_FIELDS}
        for name, row in wiring.samples.read()["providers"].items()
    }
    rates = [row["success_rate"] for row in providers.values() if row["total_requests"]]
    return {
        "timestamp": iso_time(time.time()),
        "providers": providers,
        "summary": {
            "total_providers": len(providers),
            "total_requests": sum(row["total_requests"] for row in providers.values()),
            "average_success_rate": round(sum(rates) / len(rates), 4) if rates else 0,
        },
    }


async def show_series(call: Call, wiring: Wiring) -> dict[str, Any]:
    """The last ten minutes of some figures, a number a second. Raises `InvalidRequest`."""
    series = wiring.samples.series
    names = call.text("paths", default="")
    paths = names.split(",") if names else list(series.paths)
    for path in paths:
        if path not in series.paths:
            raise refuse_value("paths", path, f"some of {', '.join(series.paths)}")
    last = call.whole("last", least=1, most=series.length, default=series.length)
    shown: dict[str, Any] = msgspec.to_builtins(series.read(paths, last=last))
    return {"object": "series", **shown}


def status_of(agents: list[AgentSnapshot], wiring: Wiring) -> str:
    """Degraded is a fleet that serves with issues; unhealthy one that cannot serve at all."""
    if wiring.is_draining():
        return "draining"
    serving = [agent for agent in agents if agent.state in SERVING]
    if not serving:
        return "unhealthy"
    is_well = len(serving) == len(agents) and not any(agent.issues for agent in agents)
    return "healthy" if is_well else "degraded"
