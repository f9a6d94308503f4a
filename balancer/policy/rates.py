"""How fast an agent has been: running means of what it reports at each call's end. Pure."""

from __future__ import annotations

UNMEASURED_BLOCK_MS = 50.0
UNMEASURED_SERVICE_MS = 2000.0
UNMEASURED_LATENCY_MS = 0.0
"""So that a new agent is tried."""
_WEIGHT_OF_NEWEST = 0.1


class Rates:
    """Milliseconds. A block is one of a prefix chain."""

    def __init__(self) -> None:
        self._block_ms: float | None = None
        self._service_ms: float | None = None
        self._latency_ms: float | None = None

    @property
    def block_ms(self) -> float:
        """What a block of the prompt takes that is not cached."""
        return UNMEASURED_BLOCK_MS if self._block_ms is None else self._block_ms

    @property
    def service_ms(self) -> float:
        """What generating takes, prompts aside."""
        return UNMEASURED_SERVICE_MS if self._service_ms is None else self._service_ms

    @property
    def latency_ms(self) -> float:
        """From a call to its first token."""
        return UNMEASURED_LATENCY_MS if self._latency_ms is None else self._latency_ms

    def note(self, *, blocks: float, prefill_ms: float, decode_ms: float) -> None:
        """A call is over; `blocks` are those that were not cached."""
        if blocks >= 1.0:
            self._block_ms = _mixed(self._block_ms, prefill_ms / blocks)
        self._service_ms = _mixed(self._service_ms, decode_ms)
        self._latency_ms = _mixed(self._latency_ms, prefill_ms)


def _mixed(before: float | None, newest: float) -> float:
    return newest if before is None else before + _WEIGHT_OF_NEWEST * (newest - before)
