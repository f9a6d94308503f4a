"""Connections that owe the rest of a request's head, and when they have owed it for too long.

One timer for all of a port: heads that arrive in time, which are nearly all, cost a look-up.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from balancer.settings import LiveSettings

_LEAST_GAP_S = 0.05


class Debtor(Protocol):
    """A connection."""

    def give_up_head(self) -> None:
        """Its time is over."""


class HeadWatch:
    """Who began first is first in it, as all have the same time."""

    def __init__(self, live: LiveSettings) -> None:
        """Inside the running loop."""
        self._live = live
        self._loop = asyncio.get_running_loop()
        self._since_s: dict[Debtor, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, debtor: Debtor) -> None:
        """Its clock runs, if it does not already."""
        if debtor in self._since_s:
            return
        self._since_s[debtor] = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._patience_s, self._look)

    def end(self, debtor: Debtor) -> None:
        """It owes nothing."""
        self._since_s.pop(debtor, None)

    def close(self) -> None:
        """Look no more."""
        self._since_s.clear()
        if self._timer is not None:
            self._timer.cancel()

    @property
    def _patience_s(self) -> float:
        return self._live.current.slow_header_timeout_s

    def _look(self) -> None:
        """Give up who is late, and look again when the next one would be."""
        self._timer = None
        latest_s = self._loop.time() - self._patience_s
        late = []
        for debtor, since_s in self._since_s.items():
            if since_s > latest_s:
                gap_s = max(since_s - latest_s, _LEAST_GAP_S)
                self._timer = self._loop.call_later(gap_s, self._look)
                break
            late.append(debtor)
        for debtor in late:
            self.end(debtor)
            debtor.give_up_head()
