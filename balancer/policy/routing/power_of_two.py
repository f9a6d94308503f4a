"""The less busy one of two drawn at random: nearly as good as comparing all, and never a herd.

Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (2001).
"""

from __future__ import annotations

from collections.abc import Sequence

from balancer.policy.routing.policy import AnyCandidate, Facts, can_start
from protocol.generation import GenerationRequest

_HALF_BITS, _LOW = 32, 0xFFFF_FFFF


def choose(
    request: GenerationRequest, candidates: Sequence[AnyCandidate], facts: Facts
) -> AnyCandidate | None:
    """Two different ones where there are two."""
    able = [candidate for candidate in candidates if can_start(candidate, request.model)]
    if len(able) < 2:
        return able[0] if able else None
    low, high = facts.random_bits & _LOW, facts.random_bits >> _HALF_BITS
    first = low % len(able)
    second = (first + 1 + high % (len(able) - 1)) % len(able)
    one, other = able[first], able[second]
    is_first = one.slots_free / one.slots_total >= other.slots_free / other.slots_total
    return one if is_first else other
