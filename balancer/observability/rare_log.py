"""Log lines about what strangers can cause at will: one in a while, with how many were left out."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import structlog

log = structlog.get_logger(__name__)

GAP_S = 10.0


class RareLog:
    """Of each event and reason one line at most is written in `GAP_S` seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._written_s: dict[tuple[str, str], float] = {}
        self._left_out: dict[tuple[str, str], int] = {}

    def warning(self, event: str, *, reason: str, **facts: Any) -> None:
        """Both are our own words, of which there are few."""
        now_s, kind = self._now(), (event, reason)
        if now_s - self._written_s.get(kind, -GAP_S) < GAP_S:
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return
        self._written_s[kind] = now_s
        log.warning(event, reason=reason, **facts, left_out=self._left_out.pop(kind, 0))
