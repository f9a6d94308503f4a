"""The agent whose calls got their first token soonest, less so the fuller it is."""

from __future__ import annotations

from collections.abc import Sequence

from balancer.policy.routing.cheapest import cheapest
from balancer.policy.routing.policy import AnyCandidate, Candidate, Facts
from protocol.generation import GenerationRequest


def choose(
    request: GenerationRequest, candidates: Sequence[AnyCandidate], facts: Facts
) -> AnyCandidate | None:
    """Agents that were never measured come first; equals take turns."""
    return cheapest(request, candidates, facts, _costs)


def _costs(able: Sequence[tuple[Candidate, float]]) -> list[tuple[float, float]]:
    return [(one.rates.latency_ms * (1.0 + share), share) for one, share in able]
