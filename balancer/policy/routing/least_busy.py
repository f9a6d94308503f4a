"""The agent with the smallest share of its slots in use; equals take turns."""

from __future__ import annotations

from collections.abc import Sequence

from balancer.policy.routing.cheapest import cheapest
from balancer.policy.routing.policy import AnyCandidate, Candidate, Facts
from protocol.generation import GenerationRequest


def choose(
    request: GenerationRequest, candidates: Sequence[AnyCandidate], facts: Facts
) -> AnyCandidate | None:
    """Shares are compared, not counts: an agent twice as large gets twice as many requests."""
    return cheapest(request, candidates, facts, _costs)


def _costs(able: Sequence[tuple[Candidate, float]]) -> list[float]:
    return [share for _, share in able]
