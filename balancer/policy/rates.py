"""How fast an agent has been: running means of what it reports at each call's end. Pure."""

from __future__ import annotations

UNMEASURED_BLOCK_MS = 50.0
UNMEASURED_SERVICE_MS = 2000.0
UNMEASURED_LATENCY_MS = 0.0
"""So that a new agent is tried."""
_WEIGHT_OF_NEWEST = 0.1


class Rates:
    """Milliseconds, to three digits. A block is one of a prefix chain."""

    def __init__(self) -> None:
        self.block_ms = UNMEASURED_BLOCK_MS
        """What a block of the prompt takes that is not cached."""
        self.service_ms = UNMEASURED_SERVICE_MS
        """What generating takes, prompts aside."""
        self.latency_ms = UNMEASURED_LATENCY_MS
        """From a call to its first token."""
        self._has_call = self._has_block = False

    def note(self, *, blocks: float, prefill_ms: float, decode_ms: float) -> None:
        """A call is over; `blocks` are those that were not cached."""
        if blocks >= 1.0:
            is_first, self._has_block = not self._has_block, True
            self.block_ms = _mixed(self.block_ms, prefill_ms / blocks, is_first=is_first)
        is_first, self._has_call = not self._has_call, True
        self.service_ms = _mixed(self.service_ms, decode_ms, is_first=is_first)
        self.latency_ms = _mixed(self.latency_ms, prefill_ms, is_first=is_first)


def _mixed(before: float, newest: float, *, is_first: bool) -> float:
    return round(newest if is_first else before + _WEIGHT_OF_NEWEST * (newest - before), 3)
