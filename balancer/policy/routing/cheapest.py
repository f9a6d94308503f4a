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
    best = _best(request.model, able, costs)
    return best[facts.ordinal % len(best)] if best else None


def _best(
    model: str, able: Sequence[tuple[AnyCandidate, float]], costs: Costs[Cost]
) -> list[AnyCandidate]:
    """Those that cost least, of those that serve the model."""
    if not able:
        return []
    each = costs(able)
    lowest = min(each)
    # most cost too much, and of those nothing else is asked
    best = [one for (one, _), cost in zip(able, each, strict=True) if cost == lowest]
    serving = [one for one in best if one.serves(model)]
    return serving or _best(model, [pair for pair in able if pair[0].serves(model)], costs)
