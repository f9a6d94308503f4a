"""A store of counters that several balancers share, played in one process: what it takes to satisfy
the bus's contract where every question has to travel.

What is given back travels, too, and arrives when `deliver` is called. A reservation leases a little
more than was asked for, where there is more, which is what `extend` may give without asking.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from balancer.cluster.bus import Entry
from balancer.cluster.local import LocalBus
from balancer.observability.scraped import LimitFigures
from balancer.policy.limits import ledger
from balancer.policy.limits.amounts import Bound, Moment, Refusal, Standing
from balancer.policy.limits.ledger import Ledger

HEADROOM = 8


class SharedStore:
    """The one account of all, and what is on its way to it."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.is_away = False
        self._on_their_way: deque[Callable[[], None]] = deque()

    def tell(self, message: Callable[[], None]) -> None:
        """To be done when it arrives."""
        self._on_their_way.append(message)

    def deliver(self) -> None:
        """All that is on its way arrives, in order."""
        while self._on_their_way:
            self._on_their_way.popleft()()


class SharedReservation:
    """Satisfies `Reservation`: a lease of the store's."""

    def __init__(
        self, store: SharedStore, lease: ledger.Reservation, tokens: int, bound: Bound
    ) -> None:
        self._store = store
        self._lease = lease
        self._bound = bound
        self.tokens = tokens
        self._is_settled = False

    def extend(self, tokens: int, at: Moment) -> Refusal | None:
        """From what is leased, or not at all."""
        del at
        if self.tokens + tokens > self._lease.tokens:
            limit = self._bound.limits.tokens_per_minute or 0
            return Refusal(
                subject=self._bound.subject, excess="tokens", limit=limit, retry_after_s=60.0
            )
        self.tokens += tokens
        return None

    def shrink(self, tokens: int) -> None:
        """The lease keeps it until the end."""
        self.tokens -= min(tokens, self.tokens)

    def settle(self, at: Moment, *, spent: int) -> None:
        """By a message."""
        if not self._is_settled:
            self._is_settled = True
            counted = min(spent, self.tokens)
            self._store.tell(lambda: self._lease.settle(at, spent=counted))

    def expire(self, at: Moment) -> None:
        """Its balancer is gone: nobody knows what it spent."""
        self._is_settled = True
        self._lease.settle(at, spent=self._lease.tokens)


class SharedEntry:
    """Satisfies `Entry`."""

    def __init__(self, store: SharedStore, entry: ledger.Entry, bounds: Sequence[Bound]) -> None:
        self._store = store
        self._entry = entry
        self._bounds = bounds

    @property
    def limits_tokens(self) -> bool:
        return self._entry.limits_tokens

    async def reserve(self, tokens: int, at: Moment) -> SharedReservation | Refusal:
        await asyncio.sleep(0)
        found = self._entry.reserve(tokens + HEADROOM, at)
        if isinstance(found, Refusal):
            found = self._entry.reserve(tokens, at)
        if isinstance(found, Refusal):
            return found
        return SharedReservation(self._store, found, tokens, self._bounds[0])

    def tokens_left(self, at: Moment) -> int | None:
        return self._entry.tokens_left(at)

    def leave(self, at: Moment) -> None:
        self._store.tell(lambda: self._entry.leave(at))

    def requests_standing(self, at: Moment) -> Standing | None:
        return self._entry.requests_standing(at)

    def tokens_standing(self, at: Moment) -> Standing | None:
        return self._entry.tokens_standing(at)


class SharedBus:
    """Satisfies `Bus`: one balancer's way to the store."""

    def __init__(self, store: SharedStore) -> None:
        self._store = store
        self._own = LocalBus()

    async def enter(self, bounds: Sequence[Bound], at: Moment) -> Entry | Refusal:
        await asyncio.sleep(0)
        if self._store.is_away:
            return await self._own.enter(bounds, at)
        found = self._store.ledger.enter(bounds, at)
        return found if isinstance(found, Refusal) else SharedEntry(self._store, found, bounds)

    def figures(self) -> LimitFigures:
        return LocalBus(self._store.ledger).figures()
