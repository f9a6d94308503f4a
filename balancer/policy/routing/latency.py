"""The agent whose calls got their first token soonest, less so the fuller it is."""

from __future__ import annotations

from collections.abc import Sequence

from balancer.policy.routing.cheapest import NEVER, cheapest
from balancer.policy.routing.policy import AnyCandidate, Facts
from protocol.generation import GenerationRequest


def choose(
    request: GenerationRequest, candidates: Sequence[AnyCandidate], facts: Facts
) -> AnyCandidate | None:
    """Agents that were never measured come first; equals take turns."""
    costs = [
        (one.rates.latency_ms * (2.0 - (free := one.slots_free / one.slots_total)), 1.0 - free)
        if one.slots_free > 0 and not one.is_draining
        else (NEVER, NEVER)
        for one in candidates
    ]
    return cheapest(request, candidates, facts, costs, never=(NEVER, NEVER))
