"""The cheapest of those that could start a request: what several policies share.

A policy gives the costs of all candidates as one list, made in one expression: a call for each of a
thousand agents would be most of what a choice takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TypeVar

from balancer.policy.routing.policy import AnyCandidate, Facts
from protocol.generation import GenerationRequest

Cost = TypeVar("Cost", float, tuple[float, float])
NEVER = inf
"""The cost of one that has no room or is drained."""


def cheapest(
    request: GenerationRequest,
    candidates: Sequence[AnyCandidate],
    facts: Facts,
    costs: Sequence[Cost],
    *,
    never: Cost,
) -> AnyCandidate | None:
    """The candidate of the lowest of `costs`, which are theirs in order. Equals take turns, by
    count where all candidates serve the model, as a roster's do. None where all of them are
    `never`, or nobody serves the model."""
    lowest = min(costs, default=never)
    if lowest == never:
        return None
    at, equals = -1, costs.count(lowest)
    for _ in range(facts.ordinal % equals + 1):
        at = costs.index(lowest, at + 1)
    if candidates[at].serves(request.model):  # as all candidates mostly do
        return candidates[at]
    pairs = zip(candidates, costs, strict=True)
    theirs = [cost if one.serves(request.model) else never for one, cost in pairs]
    return cheapest(request, candidates, facts, theirs, never=never)
