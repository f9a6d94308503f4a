"""When what happened to one generation, and what the metrics are told of it."""

from __future__ import annotations

from collections.abc import Callable

from balancer.observability.metrics import Metrics


class Times:
    """Seconds of the dispatcher's clock; `…_ms` are durations."""

    __slots__ = (
        "_broke_s",
        "_claimed_s",
        "_first_here_s",
        "_first_token_s",
        "_left_s",
        "_metrics",
        "_now",
        "_started_s",
        "arrived_s",
        "waits_since_s",
    )

    def __init__(self, now: Callable[[], float], metrics: Metrics) -> None:
        self._now = now
        self._metrics = metrics
        self.arrived_s = self.waits_since_s = now()
        self._started_s = self._claimed_s = self.arrived_s
        self._first_token_s: float | None = None
        self._first_here_s: float | None = None
        self._broke_s: float | None = None
        self._left_s: float | None = None

    @property
    def age_ms(self) -> float:
        """Since its arrival."""
        return (self._now() - self.arrived_s) * 1000

    @property
    def has_left(self) -> bool:
        """Whether its running call was cancelled."""
        return self._left_s is not None

    @property
    def ttft_ms(self) -> float:
        """From its arrival to its first token; 0 before it."""
        first_s = self._first_token_s
        return 0.0 if first_s is None else (first_s - self.arrived_s) * 1000

    def prompt_s(self, *, held_s: float) -> float:
        """Of the time that the latest slot was held, what was before its first token."""
        first_s = self._first_here_s
        return held_s if first_s is None else first_s - self._claimed_s

    def queue_ms(self, *, is_waiting: bool) -> float:
        """From its arrival to the claim of its first slot, or until now."""
        until_s = self._now() if is_waiting else self._started_s
        return (until_s - self.arrived_s) * 1000

    def claimed(self, *, is_first: bool) -> None:
        """It has a slot; `is_first`: no agent has worked on it before."""
        self._claimed_s = self._now()
        self._first_here_s = None
        if is_first:
            self._started_s = self._claimed_s

    def first_token_here(self) -> None:
        """The agent that works on it now gave its first token."""
        now = self._first_here_s = self._now()
        if self._first_token_s is None:
            self._first_token_s = now
        if self._broke_s is not None:
            self._metrics.move_pause_seconds.observe(now - self._broke_s)
            self._broke_s = None

    def broke(self) -> None:
        """It cannot go on where it was."""
        self.waits_since_s = self._now()
        if self._broke_s is None:
            self._broke_s = self.waits_since_s

    def left(self) -> None:
        """Nobody wants it any more; its call is cancelled."""
        self._left_s = self._now()

    def released(self) -> float:
        """Its slot is free; for how many seconds it was held."""
        now = self._now()
        if self._left_s is not None:
            self._metrics.cancel_to_free_slot_seconds.observe(now - self._left_s)
        return now - self._claimed_s

    def finished(self) -> None:
        """It ended well."""
        if self._first_token_s is not None:
            self._metrics.time_to_first_token_seconds.observe(self.ttft_ms / 1000)
