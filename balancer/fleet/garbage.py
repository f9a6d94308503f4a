"""How much nonsense one agent may send: the first of a kind is logged, ten a minute are enough."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal

import structlog

from balancer.observability.metrics import Metrics

log = structlog.get_logger(__name__)

GarbageKind = Literal[
    "bad_frame", "bad_message", "unknown_call", "unexpected_message", "unregistered", "rejected"
]

MAX_PER_WINDOW = 10
WINDOW_S = 60.0
_SHOWN_CHARS = 200


class GarbageMeter:
    """Counts unusable messages of one link."""

    def __init__(self, *, metrics: Metrics, now: Callable[[], float]) -> None:
        self._metrics = metrics
        self._now = now
        self._times: deque[float] = deque(maxlen=MAX_PER_WINDOW)
        self._logged: set[GarbageKind] = set()

    def count(self, kind: GarbageKind, what: str, *, agent: str) -> bool:
        """Count one; True when it was one too many and the link should end."""
        self._metrics.link_garbage(kind)
        if kind not in self._logged:
            self._logged.add(kind)
            log.warning("message dropped", agent=agent, kind=kind, reason=what[:_SHOWN_CHARS])
        now = self._now()
        self._times.append(now)
        return len(self._times) == MAX_PER_WINDOW and now - self._times[0] < WINDOW_S
