"""What becomes of a query that broke off: who is to blame, and whether it is done elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from balancer.dispatch.admission import Admission
from balancer.dispatch.consequences import judged
from balancer.errors import BalancerError
from balancer.fleet.agent import Agent
from balancer.fleet.roster import Roster
from balancer.policy import failover
from balancer.policy.failover import Breakage, RetryBudget, Trail
from protocol.jsonrpc import ErrorObject


class Retried(Protocol):
    """A request of one query or of several, as it broke off."""

    @property
    def queue(self) -> str: ...

    @property
    def trail(self) -> Trail: ...

    @property
    def avoided(self) -> set[Agent]: ...


class QueryFailures:
    """Judges for one dispatcher; its requests pay from one budget of retries."""

    def __init__(self, *, roster: Roster, admission: Admission, now: Callable[[], float]) -> None:
        self._roster = roster
        self._admission = admission
        self._now = now
        self._retries = RetryBudget()

    def note_request(self) -> None:
        """One came: the budget grows with them."""
        self._retries.note_request(self._now())

    def note_success(self, agent: Agent) -> None:
        """It answered well."""
        if not agent.health.is_well or agent.health.has_failed:
            self._roster.note_success(agent)

    def judged(
        self, error: ErrorObject, agent: Agent, model: str
    ) -> tuple[Breakage | None, BalancerError]:
        """What an agent's refusal is, other than for want of room, and what a client is told of
        it; None: the client is to blame."""
        retry_after_s = self._admission.retry_after_s(model)
        return judged(error, agent=agent.name, retry_after_s=retry_after_s)

    def reason_to_give_up(
        self,
        request: Retried,
        agent: Agent,
        breakage: Breakage,
        error: BalancerError,
        *,
        able: Callable[[], Iterable[Agent]],
        is_to_blame: bool = True,
    ) -> BalancerError | None:
        """Note what happened, of the request and of the agent. None: the request goes on, by one
        of those that are `able`; otherwise what its client is told."""
        request.trail.note(breakage, had_output=False)
        if breakage in ("failed", "stalled"):
            request.avoided.add(agent)
        if is_to_blame:
            self._blame(agent, breakage)
        now = self._now()
        is_charged = failover.is_charged(breakage)
        verdict = failover.verdict(
            breakage,
            request.trail,
            has_budget=not is_charged or self._retries.has_room(now),
            has_others=any(
                other not in request.avoided and not (other.is_draining or other.is_ejected)
                for other in able()
            ),
        )
        if verdict != "elsewhere":
            return self._admission.given_up(error, verdict, request.queue)
        if is_charged:
            self._retries.note_retry(now)
        return None

    def _blame(self, agent: Agent, breakage: Breakage) -> None:
        if breakage != "link_lost":
            self._roster.note_failure(agent, engine_died=breakage == "engine_died")
        elif not agent.is_draining:
            self._roster.note_lost(agent)
        if breakage == "engine_died":
            agent.note_query_refusal()  # until it says that it is back
