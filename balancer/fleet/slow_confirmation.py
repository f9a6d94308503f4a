"""Noticing agents that leave a call or a cancel unanswered."""

from __future__ import annotations

import structlog

from balancer.fleet.agent import Agent
from protocol.agent_status import Issue

log = structlog.get_logger(__name__)

CONFIRMATION_S = 2.0
SLOW_CONFIRMATION = "slow_confirmation"


def notice_slow_confirmation(agent: Agent, *, now: float) -> None:
    """Raise an issue while it does, clear it after."""
    since = agent.link.oldest_unconfirmed_s()
    longest_s = CONFIRMATION_S + 2 * agent.link.longest_step_s
    if since is None or now - since <= longest_s:
        agent.noticed.pop(SLOW_CONFIRMATION, None)
    elif SLOW_CONFIRMATION not in agent.noticed:
        agent.noticed[SLOW_CONFIRMATION] = Issue(
            code=SLOW_CONFIRMATION,
            message=f"no answer to a call for {longest_s:.1f} s; is the host overloaded?",
            severity="warning",
        )
        log.warning("agent slow to confirm", agent=agent.name, waited_s=longest_s)
