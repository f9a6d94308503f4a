"""The counters of limits as whoever asks for something sees them: in this process, or in a store
that several balancers share. `policy.limits` decides; a bus is who keeps what is decided by.

Two operations take something, and wait: `Bus.enter` and `Entry.reserve`. Each is one step of the
store: all bounds have room and all of them count it, or none does. Cancelled while they wait, they
leave nothing behind.

All others come from callbacks that cannot wait. What gives something back (`leave`, `shrink`,
`settle`) is a message to the store, which must reach it however the connection fares; what takes
more (`extend`) is decided by what the bus has leased for this reservation, so that it may refuse
what the store still has, and never grants what the store has not. A lease ends with the balancer
that took it: what it had reserved then counts as spent, as nobody knows better.

A store that does not answer makes limits neither void nor closed: the bus goes on with counters of
its own, so that each balancer by itself still holds everybody to the limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from balancer.observability.scraped import LimitFigures
from balancer.policy.limits.amounts import Bound, Moment, Refusal, Standing


class Reservation(Protocol):
    """Tokens that are promised, until they are settled to what was spent: once, by whoever
    reserved them, on every way out."""

    @property
    def tokens(self) -> int:
        """That are promised now."""

    def extend(self, tokens: int, at: Moment) -> Refusal | None:
        """Promise so many more, or say which bound does not let it have them."""

    def shrink(self, tokens: int) -> None:
        """Give so many back, that cannot be spent any more."""

    def settle(self, at: Moment, *, spent: int) -> None:
        """It is over. So many were spent, of which no more count than were promised. Nothing
        happens when it was settled."""


class Entry(Protocol):
    """One request that was let in, until it leaves."""

    @property
    def limits_tokens(self) -> bool:
        """Whether any of its bounds does."""

    async def reserve(self, tokens: int, at: Moment) -> Reservation | Refusal:
        """Promise it so many, or say which bound does not let it have them."""

    def tokens_left(self, at: Moment) -> int | None:
        """That could be promised to it, as far as is known; None: as many as it likes."""

    def leave(self, at: Moment) -> None:
        """It is over. What it reserved and did not settle has leaked. Nothing happens when it has
        left."""

    def requests_standing(self, at: Moment) -> Standing | None:
        """What is left of requests, as far as is known; None: no bound."""

    def tokens_standing(self, at: Moment) -> Standing | None:
        """What is left of tokens, likewise."""


class Bus(Protocol):
    """Keeps the counters. `at` is the caller's own time; a store that is shared goes by its own."""

    async def enter(self, bounds: Sequence[Bound], at: Moment) -> Entry | Refusal:
        """Let a request in under all of the bounds, or say which does not."""

    def figures(self) -> LimitFigures:
        """What this balancer holds now."""
