"""Requests that wait for an agent with room for a query: for how long, and what ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from balancer.dispatch.admission import Admission
from balancer.dispatch.waiting_room import Waiter, WaitingRoom
from balancer.errors import BalancerError
from balancer.settings import LiveSettings


class WaitingRequest(Waiter, Protocol):
    """One that may have to wait."""

    expiry: asyncio.TimerHandle | None

    @property
    def started_s(self) -> float | None:
        """When an agent was first asked; None: nobody was."""

    @property
    def waits_since_s(self) -> float:
        """From when on its waiting is counted."""

    def left_s(self, now_s: float) -> float | None:
        """Seconds until its own deadline; None: it has none."""

    def fail(self, error: BalancerError) -> None:
        """End it with an error."""


AnyRequest = TypeVar("AnyRequest", bound=WaitingRequest)


class QueryQueue(Generic[AnyRequest]):
    """A waiting room whose waiters fail when their time is over."""

    def __init__(
        self,
        room: WaitingRoom[AnyRequest],
        *,
        admission: Admission,
        settings: LiveSettings,
        now: Callable[[], float],
    ) -> None:
        self._room = room
        self._admission = admission
        self._settings = settings
        self._now = now

    def enter(self, request: AnyRequest) -> None:
        """Wait where its turn puts it, for as long as is left of its time; or fail at once."""
        if request.started_s is None or self._settings.current.queue_timeout_s == 0:
            error = self._admission.reason_not_to_wait(
                request.queue,
                request.tenant,
                request.body_bytes,
                left_s=request.left_s(self._now()),
            )
            if error is not None:
                request.fail(error)
                return
        left_s = request.waits_since_s + self._settings.current.queue_timeout_s - self._now()
        if left_s <= 0:
            request.fail(self._admission.queue_timeout(request.queue))
            return
        self._room.enter(request)
        request.expiry = asyncio.get_running_loop().call_later(left_s, self._expire, request)

    def leave(self, request: AnyRequest) -> None:
        """It waits no more, if it did."""
        self._room.leave(request)
        if request.expiry is not None:
            request.expiry.cancel()
            request.expiry = None

    def _expire(self, request: AnyRequest) -> None:
        self.leave(request)
        request.fail(self._admission.queue_timeout(request.queue))
