"""The contract of a routing policy.

A policy looks at read-only candidates and at facts, and names one candidate that could start the
request now, or None. It keeps no state: the same facts give the same choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from msgspec import Struct

from balancer.policy.rates import Rates
from protocol.generation import GenerationRequest
from protocol.prefix_chain import HASH_BYTES


class Candidate(Protocol):
    """What a policy may know of an agent."""

    @property
    def name(self) -> str: ...

    @property
    def slots_total(self) -> int: ...

    @property
    def slots_free(self) -> int: ...

    @property
    def is_draining(self) -> bool: ...

    @property
    def rates(self) -> Rates: ...

    def serves(self, model: str) -> bool: ...

    def matched_blocks(self, chain: bytes) -> int: ...


class Facts(Struct, frozen=True, kw_only=True):
    """What differs from choice to choice. `ordinal` counts the model's starts, `random_bits` are
    64; `chain` is the request's packed prefix chain, `matched` how many of its blocks are cached,
    by the candidates' names: who is missing has none. Without it each candidate is asked."""

    now_s: float
    random_bits: int
    ordinal: int
    chain: bytes = b""
    matched: Mapping[str, int] | None = None

    @property
    def blocks(self) -> int:
        """How many the chain has."""
        return len(self.chain) // HASH_BYTES


AnyCandidate = TypeVar("AnyCandidate", bound=Candidate)


class RoutingPolicy(Protocol):
    """Chooses among candidates. `request.model` is the resolved name of a model."""

    def __call__(
        self,
        request: GenerationRequest,
        candidates: Sequence[AnyCandidate],
        facts: Facts,
    ) -> AnyCandidate | None: ...


def can_start(candidate: Candidate, model: str) -> bool:
    """Whether the candidate could start a request for this model now."""
    return candidate.slots_free > 0 and not candidate.is_draining and candidate.serves(model)


def matched_blocks(candidates: Sequence[Candidate], facts: Facts) -> Mapping[str, int]:
    """`facts.matched`, or what the candidates say."""
    if facts.matched is not None:
        return facts.matched
    return {candidate.name: candidate.matched_blocks(facts.chain) for candidate in candidates}
