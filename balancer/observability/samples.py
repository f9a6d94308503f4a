"""The balancer's figures: as they are now, and as they were each second of the last ten minutes."""

from __future__ import annotations

from collections.abc import Callable

from balancer.observability.series import SeriesStore
from balancer.observability.tree import Tree, value_at

SERIES = (
    "requests.per_second",
    "requests.in_flight",
    "requests.running",
    "requests.waiting",
    "tokens.per_second",
    "tokens.prompt_per_second",
    "latency.ttft_p50_ms",
    "latency.ttft_p95_ms",
    "latency.response_ms",
    "queue.wait_p50_ms",
    "queue.wait_p95_ms",
    "slots.total",
    "slots.used",
    "cache.hit_rate",
    "failovers.total",
    "failovers.per_minute",
    "agents.total",
    "agents.healthy",
    "system.cpu_percent",
    "system.memory_percent",
)
"""The paths whose past is kept."""

Listener = Callable[[Tree, dict[str, float | None], float], None]
"""Is given the tree, the newest number of each series, and the unix second."""


class Samples:
    """`read` makes the tree; what is made for a sample is kept and told to who listens."""

    def __init__(self, read: Callable[[], Tree]) -> None:
        self.read = read
        """The figures as they are now."""
        self.series = SeriesStore(SERIES)
        self._listeners: dict[Listener, None] = {}

    def take(self, *, at: float) -> None:
        """One sample, at this unix second."""
        tree = self.read()
        values = {path: value_at(tree, path) for path in SERIES}
        self.series.add(values, at=at)
        for listener in tuple(self._listeners):
            listener(tree, values, at)

    def listen(self, listener: Listener) -> None:
        """Have it called with each sample."""
        self._listeners[listener] = None

    def unlisten(self, listener: Listener) -> None:
        """No more."""
        self._listeners.pop(listener, None)
