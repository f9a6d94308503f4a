"""A virtual clock: what is to happen, in the order of its time."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class Clock:
    """Seconds. Two things at the same time happen in the order in which they were asked for."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._asked = self._in_background = 0

    def now(self) -> float:
        """What the balancer's parts ask."""
        return self.now_s

    def at(self, when_s: float, what: Callable[..., None], *arguments: Any) -> None:
        """Have something happen."""
        self._asked += 1
        heapq.heappush(self._events, (when_s, self._asked, what, arguments))

    def in_background(self, when_s: float, what: Callable[[], None]) -> None:
        """Have something happen that alone is no reason to go on."""
        self._in_background += 1
        self.at(when_s, self._happen, what)

    def _happen(self, what: Callable[[], None]) -> None:
        self._in_background -= 1
        what()

    def run(self, until_s: float = float("inf")) -> None:
        """Let everything happen until then."""
        events = self._events
        while len(events) > self._in_background and events[0][0] <= until_s:
            self.now_s, _, what, arguments = heapq.heappop(events)
            what(*arguments)
