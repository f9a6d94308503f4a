"""Whether a generation stands still, and whether it has a reason to."""

from __future__ import annotations

from balancer.dispatch.relay import Relay


def rests(relay: Relay) -> bool:
    """Whether nobody expects progress: no call runs, or its client does not read."""
    claim = relay.claim
    return claim is None or relay.is_paused or relay.times.has_left or claim.is_paused_there


def is_at_work(relay: Relay) -> bool:
    """Whether an agent took it and should go on with it."""
    claim = relay.claim
    return claim is not None and claim.is_committed and not rests(relay)


def gives_way(relay: Relay) -> bool:
    """Whether its agent says that it stands still for other calls, else it would be at work."""
    claim = relay.claim
    return claim is not None and claim.gives_way and is_at_work(relay)


def is_stalled(relay: Relay, now_s: float, *, longest_s: float, is_excused: bool) -> bool:
    """Whether a running call has made no progress for so long; asked now and then, and told whether
    there is a reason."""
    prefilled = 0 if relay.claim is None else relay.claim.prefilled
    progress = (relay.attempts, len(relay.so_far.token_ids), prefilled)
    return relay.stall.lasts(progress, now_s, is_excused=is_excused) > longest_s
