"""The agent that will have answered first: what of the prompt it has cached against how busy it is.

    cost = blocks of the prompt that are not cached there * what a block takes there
         + how full it is * what generating takes there

A prefix that another call is computing there now counts as cached: the engine computes it once.
Where nothing is cached, or everything everywhere, this is the least busy one.
"""

from __future__ import annotations

from collections.abc import Sequence

from balancer.policy.routing.cheapest import NEVER, cheapest
from balancer.policy.routing.policy import AnyCandidate, Facts, matched_blocks
from protocol.generation import GenerationRequest


def choose(
    request: GenerationRequest, candidates: Sequence[AnyCandidate], facts: Facts
) -> AnyCandidate | None:
    """The cheapest; equals take turns."""
    held, blocks = matched_blocks(candidates, facts).get, facts.blocks
    costs = [
        (blocks - held(one.name, 0)) * one.rates.block_ms
        + (1.0 - one.slots_free / one.slots_total) * one.rates.service_ms
        if one.slots_free > 0 and not one.is_draining
        else NEVER
        for one in candidates
    ]
    return cheapest(request, candidates, facts, costs, never=NEVER)
