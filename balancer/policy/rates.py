"""How fast an agent has been: running means of what it reports at each call's end. Pure."""

from __future__ import annotations

UNMEASURED_BLOCK_MS = 50.0
UNMEASURED_SERVICE_MS = 2000.0
UNMEASURED_LATENCY_MS = 0.0
"""So that a new agent is tried."""
_WEIGHT_OF_NEWEST = 0.1
_WEIGHT_OF_FASTER = 0.5
_WEIGHT_OF_SLOWER = 0.02
"""Of a prompt. One that took longer stood behind others: that is the agent's load, which is known
otherwise, not its speed, and an agent that seems fast would get all of the others' requests."""


class Rates:
    """Milliseconds, to three digits. A block is one of a prefix chain."""

    def __init__(self) -> None:
        self.block_ms = UNMEASURED_BLOCK_MS
        """What a block of the prompt takes that is not cached, with the agent to itself."""
        self.service_ms = UNMEASURED_SERVICE_MS
        """What generating takes, prompts aside."""
        self.latency_ms = UNMEASURED_LATENCY_MS
        """From a call to its first token."""
        self._has_call = self._has_block = False

    def note(self, *, blocks: float, prefill_ms: float, decode_ms: float) -> None:
        """A call is over; `blocks` are those that were not cached."""
        if blocks >= 1.0:
            block_ms = prefill_ms / blocks
            weight = _WEIGHT_OF_FASTER if block_ms < self.block_ms else _WEIGHT_OF_SLOWER
            self.block_ms = _mixed(self.block_ms, block_ms, weight if self._has_block else 1.0)
            self._has_block = True
        weight = _WEIGHT_OF_NEWEST if self._has_call else 1.0
        self.service_ms = _mixed(self.service_ms, decode_ms, weight)
        self.latency_ms = _mixed(self.latency_ms, prefill_ms, weight)
        self._has_call = True


def _mixed(before: float, newest: float, weight: float) -> float:
    return round(before + weight * (newest - before), 3)
