"""/log-level: how much the balancer logs, changed while it runs."""

from __future__ import annotations

from typing import Any, get_args

import structlog

from balancer.http.calls import Call, audited
from balancer.http.exchange import Wiring
from balancer.http.faults import refuse_value
from balancer.observability.logging import level_now, set_level
from balancer.settings import LogLevel

log = structlog.get_logger(__name__)

_LEVELS: tuple[LogLevel, ...] = get_args(LogLevel)


async def show_log_level(call: Call, wiring: Wiring) -> dict[str, Any]:
    """The least level that is logged."""
    del call, wiring
    return {"level": level_now()}


@audited("log_level.set", target="level")
async def set_log_level(call: Call, wiring: Wiring) -> dict[str, Any]:
    """Another one, until the balancer stops or is told again. Raises `InvalidRequest`."""
    del wiring
    given = call.text("level")
    for level in _LEVELS:
        if level == given.lower():
            before = level_now()
            set_level(level)
            log.warning("log level changed", before=before, after=level, request_id=call.id)
            return {"level": level}
    raise refuse_value("level", given, ", ".join(_LEVELS))
