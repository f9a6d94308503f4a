"""The agent with the largest free share of its slots; equals take turns."""

from __future__ import annotations

from collections.abc import Sequence

from balancer.policy.routing.policy import AnyCandidate, Facts, can_start
from protocol.generation import GenerationRequest


def choose(
    request: GenerationRequest, candidates: Sequence[AnyCandidate], facts: Facts
) -> AnyCandidate | None:
    """Shares are compared, not counts: an agent twice as large gets twice as many requests."""
    best: list[AnyCandidate] = []
    best_share = 0.0
    for candidate in candidates:
        if not can_start(candidate, request.model):
            continue
        share = candidate.slots_free / candidate.slots_total
        if share > best_share:
            best, best_share = [candidate], share
        elif share == best_share:
            best.append(candidate)
    if not best:
        return None
    return best[facts.ordinal % len(best)]
