"""The latest lines of the log in memory, for those who read along; and which lines there are."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import MutableMapping
from itertools import islice
from typing import Any

from msgspec import UNSET, Struct, UnsetType

MAX_LINES = 2000
MAX_TEXT_CHARS = 2000
"""Of one value."""
MAX_FACTS = 32
RANKS: dict[str, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_OWN_KEYS = frozenset(
    {"event", "level", "logger", "timestamp", "request_id", "exc_info", "stack_info"}
)
_PACKAGE = "balancer."
_PLAIN = (bool, int, float)


class LogLine(Struct, frozen=True, kw_only=True):
    """One event. `at` is in unix seconds, `component` the module that wrote it."""

    at: float
    level: str
    component: str
    event: str
    request_id: str | UnsetType = UNSET
    facts: dict[str, Any]


class LogRing:
    """Lines by their number, which grows by one. `keep` is a processor of structlog: it comes after
    what is private was cut. Safe to be written to from any thread."""

    def __init__(self, length: int = MAX_LINES) -> None:
        self._lines: deque[tuple[int, LogLine]] = deque(maxlen=length)
        self._count = 0

    def keep(
        self, logger: Any, method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """Remember the event, which goes on as it is."""
        del logger
        facts = {key: _plain(event[key]) for key in event if key not in _OWN_KEYS}
        if event.get("exc_info"):
            facts["error_type"] = _error_name(event["exc_info"])
        line = LogLine(
            at=time.time(),
            level=str(event.get("level", method)),
            component=str(event.get("logger", "")).removeprefix(_PACKAGE),
            event=str(event.get("event", ""))[:MAX_TEXT_CHARS],
            request_id=str(event["request_id"]) if event.get("request_id") else UNSET,
            facts=dict(islice(facts.items(), MAX_FACTS)),
        )
        self._count += 1
        self._lines.append((self._count, line))
        return event

    @property
    def last(self) -> int:
        """The number of the latest line; 0: there is none."""
        return self._count

    def since(self, number: int) -> tuple[list[LogLine], int]:
        """The lines after the one of this number, and how many of these are forgotten."""
        lines = [(at, line) for at, line in tuple(self._lines) if at > number]
        first = lines[0][0] if lines else number + 1
        return [line for _, line in lines], first - number - 1


def _plain(value: Any) -> Any:
    """What can be written as JSON, and holds on to nothing."""
    if value is None or isinstance(value, _PLAIN):
        return value
    return str(value)[:MAX_TEXT_CHARS]


def _error_name(exc_info: Any) -> str:
    if isinstance(exc_info, BaseException):
        return type(exc_info).__name__
    kind = exc_info[0] if isinstance(exc_info, tuple) else sys.exc_info()[0]
    return "" if kind is None else str(kind.__name__)
