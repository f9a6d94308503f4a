"""A plan that is carried out again and again: what most turns of an engine are.

The weights of a model larger than the processor's caches push everything else out of them in each
decode, so what a turn costs is the memory that it touches, code and data: a few hundred cache lines
here instead of some thousand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.engine.call import Call
from agent.engine.scheduler import Plan, Seat


@dataclass(slots=True)
class Again:
    """A plan of decode tokens alone, with its seats and calls in the batch's order."""

    plan: Plan
    seats: list[Seat]
    calls: list[Call]
    tokens: list[int]
    """What the calls decode next."""
    cells: int
    """Tokens in the KV cache, of all calls, those that are left out among them."""
    takes_best: bool
    """Whether all calls want the likeliest token."""


def again(
    plan: Plan, seats: list[Seat], calls: list[Call], next_tokens: Sequence[int], cells: int
) -> Again:
    """Keep what the next turn needs of this one. `next_tokens` are by slot."""
    takes_best = all(call.generation.sampler.takes_best for call in calls)
    return Again(plan, seats, calls, [next_tokens[slot] for slot in plan.decode], cells, takes_best)
