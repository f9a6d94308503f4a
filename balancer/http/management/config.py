"""/config: the settings in force, whether the files can be used, and reading them again.

Changing them over HTTP will be PUT /config.
"""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp.web import StreamResponse

from balancer.config_file.configuration import Reload
from balancer.config_file.faults import DEFAULT, Fault
from balancer.config_file.rules import RULES, variable_of, written
from balancer.errors import InvalidRequest
from balancer.http.answers import error_body, error_json, value_answer
from balancer.http.calls import Call
from balancer.http.exchange import Exchange, Wiring
from balancer.http.iso_time import iso_time
from balancer.observability.audit import Outcome
from balancer.settings import Settings


async def show_config(call: Call, wiring: Wiring) -> dict[str, Any]:
    """What is in force, and of each setting where it comes from. None of them is a secret."""
    del call
    configuration = wiring.configuration
    loaded = configuration.loaded
    return {
        "object": "config",
        "config_version": configuration.version,
        "environment": loaded.environment,
        "files": [str(path) for path in loaded.files],
        "settings": {name: written(getattr(loaded.settings, name)) for name in RULES},
        "details": [_detail(wiring, name) for name in RULES],
    }


async def config_status(call: Call, wiring: Wiring) -> dict[str, Any]:
    """Whether the last reading of the files could be used, and what is in force since when."""
    del call
    configuration = wiring.configuration
    last = configuration.last
    return {
        "status": last.validity,
        "config_version": configuration.version,
        "last_loaded": iso_time(configuration.loaded_at_s),
        "load_time_ms": configuration.load_ms,
        "file_size_bytes": configuration.loaded.size_bytes,
        "providers_configured": len(wiring.roster.snapshot()),
        "validation_errors": [_fault(fault) for fault in last.faults],
        "restart_needed": last.restart_needed,
        "content_is_logged": configuration.live.current.log_content,
        "cache_status": _cache_status(wiring),
        "cache_isolated": wiring.isolation.is_on,
    }


async def reload_config(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """Read the files again. 400 where they cannot be applied; then everything stays as it is."""
    reload = await _reloaded(exchange, wiring)
    answer = _answer(reload)
    if reload.succeeded:
        return value_answer(exchange, answer)
    error = _refusal(reload)
    exchange.facts["error"] = error.code
    body = {**answer, **error_body(exchange, error)}
    return error_json(exchange, error, msgspec.json.encode(body))


async def reload_over_socket(call: Call, wiring: Wiring) -> dict[str, Any]:
    """The same; what a refusal answers stands among the error's details."""
    reload = await _reloaded(call, wiring)
    if reload.succeeded:
        return _answer(reload)
    raise _refusal(reload, details=_answer(reload))


async def _reloaded(caller: Call | Exchange, wiring: Wiring) -> Reload:
    reload = await wiring.configuration.reload("request")
    outcome: Outcome = "done" if reload.succeeded else "refused"
    wiring.audit.note("config.reload", caller, outcome=outcome, trigger="request", **reload.facts)
    return reload


def _refusal(reload: Reload, *, details: dict[str, Any] | None = None) -> InvalidRequest:
    return InvalidRequest(
        reload.message,
        code="restart_needed" if reload.restart_needed else "invalid_value",
        param=reload.faults[0].field,
        details=details,
    )


def _answer(reload: Reload) -> dict[str, Any]:
    return {
        "success": reload.succeeded,
        "message": reload.message,
        "reload_time_ms": reload.took_ms,
        "config_version": reload.version,
        "changes_detected": bool(reload.changes),
        "changes": reload.changes,
        "restart_needed": reload.restart_needed,
        "validation_errors": [_fault(fault) for fault in reload.faults],
    }


def _detail(wiring: Wiring, name: str) -> dict[str, Any]:
    loaded, rule = wiring.configuration.loaded, RULES[name]
    origin = loaded.origins.get(name, DEFAULT)
    return {
        "name": name,
        "value": written(getattr(loaded.settings, name)),
        "default": written(getattr(Settings(), name)),
        "description": rule.what,
        "allowed": rule.allowed,
        "origin": str(origin),
        "origin_kind": origin.kind,
        "line": origin.line,
        "applies": "reload" if rule.is_live else "restart",
        "variable": variable_of(name),
        "flag": rule.flag,
    }


def _fault(fault: Fault) -> dict[str, Any]:
    return {
        "message": str(fault),
        "field": fault.field,
        "problem": fault.problem,
        "source": fault.origin.name or None,
        "line": fault.origin.line,
        "remedy": fault.remedy,
    }


def _cache_status(wiring: Wiring) -> dict[str, Any]:
    """Of what the agents have cached of prompts: whether requests are routed by it, which share of
    the prompts' tokens was there (null: there were none yet), how many blocks are known."""
    hit_rate = wiring.metrics.cached_share()
    return {
        "enabled": wiring.settings.policy == "prefix_aware",
        "hit_rate": None if hit_rate is None else round(hit_rate, 4),
        "entries": wiring.roster.cached_blocks,
    }
