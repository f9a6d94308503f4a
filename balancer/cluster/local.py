"""Counters of one balancer, in its memory: nothing here ever waits."""

from __future__ import annotations

from collections.abc import Sequence

from balancer.observability.scraped import LimitFigures
from balancer.policy.limits import ledger
from balancer.policy.limits.amounts import Bound, Moment, Refusal, Standing
from balancer.policy.limits.ledger import Ledger, Reservation


class LocalEntry:
    """Satisfies `Entry`."""

    __slots__ = ("_entry",)

    def __init__(self, entry: ledger.Entry) -> None:
        self._entry = entry

    @property
    def limits_tokens(self) -> bool:
        """Whether any of its bounds does."""
        return self._entry.limits_tokens

    async def reserve(self, tokens: int, at: Moment) -> Reservation | Refusal:
        """Promise it so many, or say which bound does not let it have them."""
        return self._entry.reserve(tokens, at)

    def tokens_left(self, at: Moment) -> int | None:
        """That could be promised to it now."""
        return self._entry.tokens_left(at)

    def leave(self, at: Moment) -> None:
        """It is over."""
        self._entry.leave(at)

    def requests_standing(self, at: Moment) -> Standing | None:
        """What is left of requests."""
        return self._entry.requests_standing(at)

    def tokens_standing(self, at: Moment) -> Standing | None:
        """What is left of tokens."""
        return self._entry.tokens_standing(at)


class LocalBus:
    """Satisfies `Bus`."""

    def __init__(self, ledger: Ledger | None = None) -> None:
        self.ledger = ledger or Ledger()

    async def enter(self, bounds: Sequence[Bound], at: Moment) -> LocalEntry | Refusal:
        """Let a request in under all of the bounds, or say which does not."""
        found = self.ledger.enter(bounds, at)
        return found if isinstance(found, Refusal) else LocalEntry(found)

    def figures(self) -> LimitFigures:
        """What the ledger holds now."""
        own = self.ledger
        return LimitFigures(
            entries=own.entries,
            reservations=own.reservations,
            reserved_tokens=own.reserved_tokens,
            leaked_reservations=own.leaked_reservations,
            settled_tokens=own.settled_tokens,
            tables={"subjects": len(own)},
        )
