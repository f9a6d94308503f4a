"""The agent with the smallest share of its slots in use; equals take turns."""

from __future__ import annotations

from collections.abc import Sequence

from balancer.policy.routing.cheapest import NEVER, cheapest
from balancer.policy.routing.policy import AnyCandidate, Facts
from protocol.generation import GenerationRequest


def choose(
    request: GenerationRequest, candidates: Sequence[AnyCandidate], facts: Facts
) -> AnyCandidate | None:
    """Shares are compared, not counts: an agent twice as large gets twice as many requests."""
    costs = [
        1.0 - one.slots_free / one.slots_total
        if one.slots_free > 0 and not one.is_draining
        else NEVER
        for one in candidates
    ]
    return cheapest(request, candidates, facts, costs, never=NEVER)
