"""What requests that take no slot have in common, from their arrival to their end."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

from balancer.dispatch.listing import RequestSnapshot
from balancer.errors import BalancerError
from balancer.fleet.agent import Agent
from balancer.policy.failover import Trail

Result = TypeVar("Result", covariant=True)


class QueryRequest(ABC, Generic[Result]):
    """Done by one query or by several. `done` becomes its result or its error. Satisfies the
    waiting room's `Waiter`."""

    __slots__ = (
        "arrived_s",
        "avoided",
        "body_bytes",
        "done",
        "expiry",
        "rank",
        "request_id",
        "started_s",
        "tenant",
        "trail",
        "waits_since_s",
    )

    def __init__(
        self, *, ordinal: int, tenant: str, request_id: str, body_bytes: int, now_s: float
    ) -> None:
        self.tenant = tenant
        self.request_id = request_id
        self.body_bytes = body_bytes
        self.arrived_s = self.waits_since_s = now_s
        self.started_s: float | None = None
        self.done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.expiry: asyncio.TimerHandle | None = None
        self.trail = Trail()
        self.avoided: set[Agent] = set()
        """Those that failed it: others are preferred."""
        self.rank = (1, ordinal)
        """First come, first served, also where it comes back."""

    @property
    @abstractmethod
    def queue(self) -> str:
        """The model's name as the request has it."""

    @property
    @abstractmethod
    def agents_at_work(self) -> Sequence[Agent]:
        """Those that work on it now."""

    @property
    def length(self) -> int:
        """It generates nothing."""
        return 0

    @property
    def is_over(self) -> bool:
        """Whether it has its result, its error, or no client any more."""
        return self.done.done()

    @property
    def attempts(self) -> int:
        """1 more than the times that an agent failed it."""
        return 1 + self.trail.moves

    @property
    def queue_ms(self) -> float:
        """Milliseconds until an agent was first asked."""
        started_s = self.arrived_s if self.started_s is None else self.started_s
        return 1000 * (started_s - self.arrived_s)

    def age_ms(self, now_s: float) -> float:
        """Milliseconds since it came."""
        return 1000 * (now_s - self.arrived_s)

    def left_s(self, now_s: float) -> float | None:  # noqa: ARG002 (others have a deadline)
        """Seconds until its own deadline; None: it has none."""
        return None

    def asked(self, now_s: float) -> None:
        """An agent was."""
        self.started_s = now_s if self.started_s is None else self.started_s

    def waits_again(self, now_s: float) -> None:
        """It lost an agent: it may wait anew."""
        self.waits_since_s = now_s

    def fail(self, error: BalancerError) -> None:
        """End it with an error, unless it is over."""
        if not self.done.done():
            self.done.set_exception(error)

    def leave(self) -> None:
        """Nobody waits for the result any more."""
        if self.done.done() and not self.done.cancelled():
            self.done.exception()  # seen by whoever awaited, or by nobody: no complaint about it

    def snapshot(self, *, now_s: float, position: int | None = None) -> RequestSnapshot:
        """The request as operators see it."""
        agents = self.agents_at_work
        return RequestSnapshot(
            id=self.request_id,
            model=self.queue,
            tenant=self.tenant,
            state="running" if agents else "waiting",
            agent=agents[0].name if agents else None,
            attempts=self.attempts if self.started_s is not None else 0,
            age_ms=round(self.age_ms(now_s), 3),
            completion_tokens=0,
            position=position,
        )
