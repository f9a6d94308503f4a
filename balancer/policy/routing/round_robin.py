"""Agents in turn, whatever their size; one that cannot start a request is passed over."""

from __future__ import annotations

from collections.abc import Sequence

from balancer.policy.routing.policy import AnyCandidate, Facts, can_start
from protocol.generation import GenerationRequest


def choose(
    request: GenerationRequest, candidates: Sequence[AnyCandidate], facts: Facts
) -> AnyCandidate | None:
    """The turn goes over all who serve the model, so that a full one does not shift the others."""
    serving = [candidate for candidate in candidates if candidate.serves(request.model)]
    for step in range(len(serving)):
        candidate = serving[(facts.ordinal + step) % len(serving)]
        if can_start(candidate, request.model):
            return candidate
    return None
