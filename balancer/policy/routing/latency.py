"""The agent whose calls got their first token soonest, less so the fuller it is."""

from __future__ import annotations

from collections.abc import Sequence

from balancer.policy.routing.policy import AnyCandidate, Facts, can_start
from protocol.generation import GenerationRequest


def choose(
    request: GenerationRequest, candidates: Sequence[AnyCandidate], facts: Facts
) -> AnyCandidate | None:
    """Agents that were never measured come first; equals take turns."""
    best: list[AnyCandidate] = []
    best_cost = (float("inf"), float("inf"))
    for candidate in candidates:
        if not can_start(candidate, request.model):
            continue
        share = 1.0 - candidate.slots_free / candidate.slots_total
        cost = (candidate.rates.latency_ms * (1.0 + share), share)
        if cost < best_cost:
            best, best_cost = [candidate], cost
        elif cost == best_cost:
            best.append(candidate)
    if not best:
        return None
    return best[facts.ordinal % len(best)]
