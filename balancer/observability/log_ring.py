"""The latest lines of the log in memory, for those who read along; and which lines there are."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import MutableMapping
from threading import Lock
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from balancer.settings import KIB, MIB

MAX_LINES = 2000
MAX_BYTES = 4 * MIB
"""Of all lines; the oldest go first."""
MAX_TEXT_CHARS = 2000
"""Of one value."""
MAX_FACTS = 32
MAX_LINE_CHARS = 16 * KIB
"""Of one line's values; what is past it is left out."""
_LINE_BYTES = 512
_FACT_BYTES = 128
"""About what they take besides their texts."""
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

    def __init__(self, length: int = MAX_LINES, *, max_bytes: int = MAX_BYTES) -> None:
        self._lines: deque[tuple[int, LogLine, int]] = deque()
        self._length = length
        self._max_bytes = max_bytes
        self._bytes = 0
        self._count = 0
        self._lock = Lock()

    def keep(
        self, logger: Any, method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """Remember the event, which goes on as it is."""
        del logger
        facts = _facts_of(event)
        if event.get("exc_info"):
            facts["error_type"] = _error_name(event["exc_info"])
        line = LogLine(
            at=time.time(),
            level=str(event.get("level", method)),
            component=str(event.get("logger", "")).removeprefix(_PACKAGE),
            event=_text(event.get("event", "")),
            request_id=_text(event["request_id"]) if event.get("request_id") else UNSET,
            facts=facts,
        )
        with self._lock:
            self._add(line, _bytes_of(line))
        return event

    def _add(self, line: LogLine, size_bytes: int) -> None:
        self._count += 1
        self._lines.append((self._count, line, size_bytes))
        self._bytes += size_bytes
        while len(self._lines) > self._length or self._bytes > self._max_bytes:
            *_, left_bytes = self._lines.popleft()
            self._bytes -= left_bytes

    @property
    def last(self) -> int:
        """The number of the latest line; 0: there is none."""
        return self._count

    def since(self, number: int) -> tuple[list[LogLine], int]:
        """The lines after the one of this number, and how many of these are forgotten."""
        with self._lock:
            lines = [(at, line) for at, line, _ in self._lines if at > number]
            last = self._count
        first = lines[0][0] if lines else last + 1
        return [line for _, line in lines], first - number - 1


def _plain(value: Any) -> Any:
    """What can be written as JSON, and holds on to nothing."""
    if value is None or isinstance(value, _PLAIN):
        return value
    return _text(value)


def _text(value: Any) -> str:
    """Short, and such that it can be sent: what is no character, as of a name that is no UTF-8, is
    a question mark."""
    return str(value)[:MAX_TEXT_CHARS].encode("utf-8", "replace").decode()


def _facts_of(event: MutableMapping[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    left = MAX_LINE_CHARS
    for key in event:
        if key in _OWN_KEYS:
            continue
        value = _plain(event[key])
        if isinstance(value, str):
            value = value[:left]
            left -= len(value)
        facts[key] = value
        if len(facts) == MAX_FACTS:
            break
    return facts


def _bytes_of(line: LogLine) -> int:
    """About what it takes in memory."""
    texts = sum(sys.getsizeof(value) for value in line.facts.values())
    return _LINE_BYTES + sys.getsizeof(line.event) + _FACT_BYTES * len(line.facts) + texts


def _error_name(exc_info: Any) -> str:
    if isinstance(exc_info, BaseException):
        return type(exc_info).__name__
    kind = exc_info[0] if isinstance(exc_info, tuple) else sys.exc_info()[0]
    return "" if kind is None else str(kind.__name__)
