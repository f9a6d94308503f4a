"""The agent that will have answered first: what of the prompt it has cached against how busy it is.

    cost = blocks of the prompt that are not cached there * what a block takes there
         + how full it is * what generating takes there

A prefix that another call is computing there now counts as cached: the engine computes it once.
Where nothing is cached, or everything everywhere, this is the least busy one.
"""

from __future__ import annotations

from collections.abc import Sequence

from balancer.policy.routing.cheapest import cheapest
from balancer.policy.routing.policy import AnyCandidate, Candidate, Facts, matched_blocks
from protocol.generation import GenerationRequest


def choose(
    request: GenerationRequest, candidates: Sequence[AnyCandidate], facts: Facts
) -> AnyCandidate | None:
    """The cheapest; equals take turns."""
    matched, blocks = matched_blocks(candidates, facts), facts.blocks

    def cost(candidate: Candidate, share: float) -> float:
        missing = blocks - matched.get(candidate.name, 0)
        rates = candidate.rates
        return missing * rates.block_ms + share * rates.service_ms

    return cheapest(request, candidates, facts, cost)
