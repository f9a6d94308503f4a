"""Where those who wait stand, for clients who want to know it again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from balancer.dispatch.listing import RequestSnapshot

FRESH_S = 1.0


class Places:
    """Looked up for all of them at once, at most once a second: a thousand may ask."""

    def __init__(
        self, requests: Callable[[], Iterable[RequestSnapshot]], now: Callable[[], float]
    ) -> None:
        self._requests = requests
        self._now = now
        self._looked_s = float("-inf")
        self._places: dict[str, RequestSnapshot] = {}

    def of(self, request_id: str) -> RequestSnapshot | None:
        """The request as it waited then, of several choices the one that comes first; None: none of
        them waits."""
        now = self._now()
        if now - self._looked_s >= FRESH_S:
            self._looked_s, self._places = now, {}
            for row in self._requests():
                if row.position is not None:
                    self._places.setdefault(row.id, row)
        return self._places.get(request_id)
