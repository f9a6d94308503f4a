"""The agent that will have answered first: what of the prompt it has cached against how busy it is.

    cost = blocks of the prompt that are not cached there * what a block takes there
         + how full it is * what generating takes there

A prefix that another call is computing there now counts as cached: the engine computes it once.
Where nothing is cached, or everything everywhere, this is the least busy one.
"""

from __future__ import annotations

from collections.abc import Sequence

from balancer.policy.routing.policy import AnyCandidate, Facts, can_start
from protocol.generation import GenerationRequest


def choose(
    request: GenerationRequest, candidates: Sequence[AnyCandidate], facts: Facts
) -> AnyCandidate | None:
    """The cheapest; equals take turns."""
    best: list[AnyCandidate] = []
    best_cost = float("inf")
    for candidate in candidates:
        if not can_start(candidate, request.model):
            continue
        missing = facts.blocks - candidate.matched_blocks(facts.chain) if facts.blocks else 0
        rates = candidate.rates
        share = 1.0 - candidate.slots_free / candidate.slots_total
        cost = missing * rates.block_ms + share * rates.service_ms
        if cost < best_cost:
            best, best_cost = [candidate], cost
        elif cost == best_cost:
            best.append(candidate)
    if not best:
        return None
    return best[facts.ordinal % len(best)]
