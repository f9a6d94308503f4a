"""Whether a request had better wait for a full agent that has its beginning cached. Pure.

Elsewhere the blocks that are cached there would be computed once more. Waiting for a slot there is
worth it while it should take less than that; and who has waited for as long as computing would have
taken waits no longer, so that a wrong guess costs no more than the work it hoped to save.
"""

from __future__ import annotations

from balancer.policy.routing.policy import Candidate

HOLDING = frozenset({"prefix_aware"})
"""Policies under which requests wait like this."""
LONGEST_MS = 10_000.0
LEAST_MS = 100.0
"""Less is not worth the trouble."""


def hold_ms(chosen: Candidate, full: Candidate, *, blocks: int, ahead: int) -> float:
    """For how long to wait at most for the agent `full` in place of going to `chosen` now; 0: not
    at all. It has `blocks` more of the prompt than `chosen`; `ahead` others wait for it already."""
    saved_ms = min(blocks * chosen.rates.block_ms, LONGEST_MS)
    expected_ms = (ahead + 1) * full.rates.service_ms / max(full.slots_total, 1)
    return saved_ms if expected_ms < saved_ms >= LEAST_MS else 0.0
