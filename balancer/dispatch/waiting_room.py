"""Requests that wait for a slot: bounded, first come first served for each model.

The room keeps order and bounds; it decides nothing about agents. Each waiter carries its place in
the order of arrival, so that one that was started and refused returns to where it stood.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Generic, Protocol, TypeVar


class Waiter(Protocol):
    """Something that waits. `ordinal` is its place in the order of arrival, unique."""

    @property
    def ordinal(self) -> int: ...

    @property
    def queue(self) -> str:
        """The model's name as the request has it; "" where it names none."""

    @property
    def body_bytes(self) -> int: ...


AnyWaiter = TypeVar("AnyWaiter", bound=Waiter)
OnChange = Callable[[int, int], None]


class WaitingRoom(Generic[AnyWaiter]):
    """At most `max_waiting` waiters with at most `max_bytes` of bodies; when it is full, `has_room`
    says no and the request is refused. `on_change(waiting, bytes)` hears every change."""

    def __init__(self, *, max_waiting: int, max_bytes: int, on_change: OnChange) -> None:
        self._max_waiting = max_waiting
        self._max_bytes = max_bytes
        self._on_change = on_change
        self._queues: dict[str, OrderedDict[int, AnyWaiter]] = {}
        self._waiting = 0
        self._bytes = 0

    def __len__(self) -> int:
        return self._waiting

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the bodies of all who wait."""
        return self._bytes

    def length_of(self, queue: str) -> int:
        """How many wait for this model."""
        return len(self._queues.get(queue, ()))

    def has_room(self, body_bytes: int) -> bool:
        """Whether one more newcomer may wait."""
        return self._waiting < self._max_waiting and self._bytes + body_bytes <= self._max_bytes

    def enter(self, waiter: AnyWaiter) -> None:
        """Join the queue at the place that the waiter's age gives it.

        A newcomer asks `has_room` first; one that comes back was let in before and always is.
        """
        queue = self._queues.setdefault(waiter.queue, OrderedDict())
        is_last = not queue or next(reversed(queue)) < waiter.ordinal
        queue[waiter.ordinal] = waiter
        if not is_last:
            self._restore_order(queue, waiter.ordinal)
        self._count(1, waiter.body_bytes)

    def leave(self, waiter: AnyWaiter) -> bool:
        """Take the waiter out, wherever it stands; False if it did not wait."""
        queue = self._queues.get(waiter.queue)
        if queue is None or queue.pop(waiter.ordinal, None) is None:
            return False
        if not queue:
            del self._queues[waiter.queue]
        self._count(-1, -waiter.body_bytes)
        return True

    def first(self, queues: Iterable[str]) -> AnyWaiter | None:
        """The waiter of these queues that came first of all."""
        heads = [next(iter(queue.values())) for name in queues if (queue := self._queues.get(name))]
        return min(heads, key=lambda waiter: waiter.ordinal, default=None)

    def all_of(self, queue: str) -> list[AnyWaiter]:
        """Everyone who waits for this model, in order."""
        return list(self._queues.get(queue, OrderedDict()).values())

    def _count(self, waiters: int, body_bytes: int) -> None:
        self._waiting += waiters
        self._bytes += body_bytes
        self._on_change(self._waiting, self._bytes)

    @staticmethod
    def _restore_order(queue: OrderedDict[int, AnyWaiter], ordinal: int) -> None:
        """Usually one step: who comes back is older than everyone who still waits."""
        queue.move_to_end(ordinal, last=False)
        if next(islice(queue, 1, None)) > ordinal:
            return
        for key in sorted(queue):
            queue.move_to_end(key)
