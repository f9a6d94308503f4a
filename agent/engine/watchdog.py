"""Whether an engine that should compute something stands still. Pure.

A hung engine keeps its process and its socket, and its agent's heartbeats go on: nobody else would
notice. How long a step may take depends on the machine: one micro-batch of a large model can take a
minute on a CPU, so what was seen at the first decode and since then counts as well.
"""

from __future__ import annotations

LEAST_PATIENCE_S = 30.0
TIMES_THE_LONGEST_STEP = 4.0
TIMES_THE_WARM_UP = 64.0
"""It decodes a few tokens; a micro-batch may have 512."""


class Watchdog:
    """Told what is asked and what is heard; times are of any one clock, in seconds."""

    def __init__(self) -> None:
        self._owes_since_s: float | None = None
        self._longest_step_s = 0.0
        self._warm_up_s = 0.0

    def warmed_up(self, took_s: float) -> None:
        """The first decodes took so long."""
        self._warm_up_s = took_s

    def asked(self, now: float) -> None:
        """A call was submitted or continued: a step says so."""
        if self._owes_since_s is None:
            self._owes_since_s = now

    def heard(self, now: float, *, has_work: bool) -> None:
        """A step came; `has_work`: another one is due."""
        if self._owes_since_s is not None:
            self._longest_step_s = max(self._longest_step_s, now - self._owes_since_s)
        self._owes_since_s = now if has_work else None

    def forgive(self, now: float) -> None:
        """Nobody could have heard anything until now."""
        if self._owes_since_s is not None:
            self._owes_since_s = now

    def silent_s(self, now: float) -> float:
        """For how long a step has been due; 0 where none is."""
        return 0.0 if self._owes_since_s is None else now - self._owes_since_s

    @property
    def patience_s(self) -> float:
        """How long a step may take."""
        return max(
            LEAST_PATIENCE_S,
            TIMES_THE_LONGEST_STEP * self._longest_step_s,
            TIMES_THE_WARM_UP * self._warm_up_s,
        )

    def stands_still(self, now: float) -> bool:
        """Whether a step is overdue."""
        return self.silent_s(now) > self.patience_s
