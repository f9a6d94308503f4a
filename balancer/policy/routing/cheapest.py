"""The cheapest of those that could start a request: what several policies share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from balancer.policy.routing.policy import AnyCandidate, Candidate, Facts
from protocol.generation import GenerationRequest

Cost = TypeVar("Cost", float, tuple[float, float])
Costs = Callable[[Sequence[tuple[Candidate, float]]], list[Cost]]
"""What each of those with room would cost, given with the share of its slots that is used, from 0
to below 1. All at once: a call for each of a thousand agents would be most of a choice."""


def cheapest(
    request: GenerationRequest,
    candidates: Sequence[AnyCandidate],
    facts: Facts,
    costs: Costs[Cost],
) -> AnyCandidate | None:
    """Equals take turns; None where nobody could start it."""
    able = [
        (one, 1.0 - free / one.slots_total)
        for one in candidates
        if (free := one.slots_free) > 0 and not one.is_draining
    ]
    chosen = _best(able, facts.ordinal, costs)
    if chosen is None or chosen.serves(request.model):  # as candidates mostly do
        return chosen
    serving = [(one, share) for one, share in able if one.serves(request.model)]
    return _best(serving, facts.ordinal, costs)


def _best(
    able: Sequence[tuple[AnyCandidate, float]], ordinal: int, costs: Costs[Cost]
) -> AnyCandidate | None:
    if not able:
        return None
    each = costs(able)
    lowest = min(each)
    best = [one for (one, _), cost in zip(able, each, strict=True) if cost == lowest]
    return best[ordinal % len(best)]
