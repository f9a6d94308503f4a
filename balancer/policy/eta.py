"""When to try again: an estimate for `Retry-After` from what was measured."""

from __future__ import annotations

from math import ceil

LONGEST_RETRY_S = 600
UNMEASURED_SERVICE_S = 5.0
"""What a request is taken to cost a slot until one was measured."""
AGENT_RETURN_S = 3.0
"""Agents reconnect within this; it is what an empty fleet is waited for."""
_WEIGHT_OF_NEWEST = 0.2


def retry_after_s(*, ahead: int, slots: int, service_s: float | None) -> int:
    """Whole seconds, 1 to 600, until a request behind `ahead` others should find a slot.

    `slots` is what the model's agents have in all, `service_s` how long a request holds one.
    Without slots, the time until an agent is back comes first, and one slot is assumed.
    """
    return max(1, min(LONGEST_RETRY_S, ceil(wait_s(ahead=ahead, slots=slots, service_s=service_s))))


def wait_s(*, ahead: int, slots: int, service_s: float | None) -> float:
    """The same, as it is estimated: a slot frees each `service_s / slots` on average."""
    service = UNMEASURED_SERVICE_S if service_s is None else service_s
    turns = (ahead + 1) / max(slots, 1)
    return turns * service + (0.0 if slots else AGENT_RETURN_S)


def smoothed_service_s(before_s: float | None, newest_s: float) -> float:
    """The running mean of how long requests hold a slot, newer ones counting more."""
    if before_s is None:
        return newest_s
    return before_s + _WEIGHT_OF_NEWEST * (newest_s - before_s)
