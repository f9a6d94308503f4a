"""The three rooms of live sockets."""

from __future__ import annotations

from balancer.http.management.live.control import ControlFeed
from balancer.http.management.live.hub import Hub, Timer
from balancer.http.management.live.logs import LogRoom
from balancer.http.management.live.metrics import MetricsFeed
from balancer.observability.log_ring import LogRing
from balancer.observability.samples import Samples

CONTROL_INTERVAL_S = 0.25


class Live:
    """One balancer's."""

    def __init__(self, *, control: ControlFeed, samples: Samples, logs: LogRing) -> None:
        figures = MetricsFeed(samples)
        self.control = Hub(control, Timer(CONTROL_INTERVAL_S))
        self.metrics = Hub(figures, figures)
        self.logs = LogRoom(logs)

    def close(self) -> None:
        """End every socket."""
        for room in (self.control, self.metrics, self.logs):
            room.close()
