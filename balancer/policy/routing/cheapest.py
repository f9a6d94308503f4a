"""The cheapest of those that could start a request: what several policies share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from balancer.policy.routing.policy import AnyCandidate, Facts
from protocol.generation import GenerationRequest

Cost = TypeVar("Cost", float, tuple[float, float])


def cheapest(
    request: GenerationRequest,
    candidates: Sequence[AnyCandidate],
    facts: Facts,
    cost: Callable[[AnyCandidate, float], Cost],
) -> AnyCandidate | None:
    """Equals take turns; None where nobody could start it. `cost(candidate, share)`: of its slots,
    `share` are used, from 0 to 1."""
    best: list[AnyCandidate] = []
    lowest: Cost | None = None
    for candidate in candidates:
        free = candidate.slots_free
        if free <= 0:
            continue
        its_cost = cost(candidate, 1.0 - free / candidate.slots_total)
        # most cost too much, and of those nothing else is asked
        if lowest is not None and its_cost > lowest:
            continue
        if candidate.is_draining or not candidate.serves(request.model):
            continue
        if its_cost != lowest:
            best, lowest = [], its_cost
        best.append(candidate)
    if not best:
        return None
    return best[facts.ordinal % len(best)]
