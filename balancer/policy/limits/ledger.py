"""The account of all subjects: who came in, what is promised to whom, what was spent. Pure.

A request comes in under some bounds at once, and either all of them let it in or none counts it.
Then it may reserve tokens, which are settled once, whatever becomes of it. Nothing here waits, so
that between a decision and its effect nothing can come.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from balancer.access import Limits
from balancer.policy.limits.amounts import Bound, Moment, Refusal, Standing
from balancer.policy.limits.subject import Shortage, Subject, stricter

MOST_SUBJECTS = 10_000
OTHERS = "others"
"""Whoever comes while all places are taken by subjects that are counted: they share their limits,
so that a flood of new names neither grows the account nor makes it forget."""
_LOOKED_AT = 8
"""Of those that were not heard of for longest, for one that may be forgotten."""


class Ledger:
    """What every subject has had, and may have."""

    def __init__(self, most_subjects: int = MOST_SUBJECTS) -> None:
        self._most_subjects = most_subjects
        self._subjects: OrderedDict[str, Subject] = OrderedDict()
        self.reserved_tokens = 0
        """Promised now, to all requests."""
        self.leaked_tokens = 0
        """That were promised and never settled."""

    def __len__(self) -> int:
        return len(self._subjects)

    def enter(self, bounds: Sequence[Bound], at: Moment) -> Entry | Refusal:
        """Let a request in under all of the bounds, or say which does not."""
        accounts = [(self._subject(bound.subject, at), bound) for bound in bounds]
        for subject, bound in accounts:
            shortage = subject.shortage_of_requests(bound.limits, at)
            if shortage is not None:
                return _refusal(bound, shortage)
        for subject, bound in accounts:
            subject.enter(bound.limits, at)
        return Entry(self, accounts, at.now_s)

    def would_refuse(self, bound: Bound, at: Moment) -> Refusal | None:
        """Whether a request under this bound alone would not be let in; nothing is counted."""
        if bound.subject not in self._subjects:
            return None
        subject = self._subject(bound.subject, at)
        shortage = subject.shortage_of_requests(bound.limits, at)
        return None if shortage is None else _refusal(bound, shortage)

    def count(self, bound: Bound, at: Moment) -> Refusal | None:
        """Something happened that is over at once; or it may not happen."""
        entry = self.enter((bound,), at)
        if isinstance(entry, Refusal):
            return entry
        entry.leave(at)
        return None

    def _subject(self, name: str, at: Moment) -> Subject:
        subject = self._subjects.get(name)
        if subject is None:
            name = name if self._has_room(at) else OTHERS
            subject = self._subjects.setdefault(name, Subject())
        self._subjects.move_to_end(name)
        subject.look(at)
        return subject

    def _has_room(self, at: Moment) -> bool:
        """Forget one that nothing is known of any more, if need be. Who has had something of its
        day stays while it may."""
        if len(self._subjects) < self._most_subjects:
            return True
        oldest = [name for name, _ in zip(self._subjects, range(_LOOKED_AT), strict=False)]
        forgettable = None
        for name in oldest:
            subject = self._subjects[name]
            subject.look(at)
            if name == OTHERS or not subject.is_idle:
                continue
            if not subject.has_history:
                forgettable = name
                break
            forgettable = forgettable or name
        if forgettable is not None:
            del self._subjects[forgettable]
        return forgettable is not None


class Entry:
    """One request that was let in, until it leaves."""

    __slots__ = ("_accounts", "_came_s", "_ledger", "is_over", "limits_tokens")

    def __init__(
        self, ledger: Ledger, accounts: list[tuple[Subject, Bound]], came_s: float
    ) -> None:
        self._ledger = ledger
        self._accounts = accounts
        self._came_s = came_s
        self.is_over = False
        self.limits_tokens = any(
            bound.limits.tokens_per_minute is not None or bound.limits.tokens_per_day is not None
            for _, bound in accounts
        )
        """Whether any of its bounds does."""

    def tokens_left(self, at: Moment) -> int | None:
        """That could be promised to it now; None: as many as it likes."""
        left = []
        for subject, bound in self._accounts:
            subject.look(at)
            left.append(subject.tokens_left(bound.limits))
        return min((one for one in left if one is not None), default=None)

    def reserve(self, tokens: int, at: Moment) -> Reservation | Refusal:
        """Promise it so many, or say which bound does not let it have them. What it spends goes by
        the reservation, which may outlive the entry."""
        reservation = Reservation(self._ledger, self._accounts)
        return reservation.extend(tokens, at) or reservation

    def leave(self, at: Moment) -> None:
        """It is over. Nothing happens when it has left."""
        if self.is_over:
            return
        self.is_over = True
        for subject, _ in self._accounts:
            subject.leave(at.now_s - self._came_s)

    def requests_standing(self, at: Moment) -> Standing | None:
        """What is left of requests by the strictest of its bounds; None: no bound."""
        strictest = None
        for subject, bound in self._accounts:
            subject.look(at)
            strictest = stricter(strictest, subject.standing_of_requests(bound.limits, at))
        return strictest

    def tokens_standing(self, at: Moment) -> Standing | None:
        """What is left of tokens by the strictest of its bounds; None: no bound."""
        if not self.limits_tokens:
            return None
        strictest = None
        for subject, bound in self._accounts:
            subject.look(at)
            strictest = stricter(strictest, subject.standing_of_tokens(bound.limits, at))
        return strictest


class Reservation:
    """Tokens that are promised, until they are settled to what was spent."""

    __slots__ = ("_accounts", "_ledger", "is_settled", "tokens")

    def __init__(self, ledger: Ledger, accounts: list[tuple[Subject, Bound]]) -> None:
        self._ledger = ledger
        self._accounts = accounts
        self.tokens = 0
        self.is_settled = False

    def extend(self, tokens: int, at: Moment) -> Refusal | None:
        """Promise so many more, or say which bound does not let it have them."""
        if self.is_settled:
            raise AssertionError("a reservation that is settled promises no more")
        for subject, bound in self._accounts:
            subject.look(at)
            shortage = subject.shortage_of_tokens(bound.limits, at, tokens)
            if shortage is not None:
                most = _most_tokens(bound.limits)
                return _refusal(bound, shortage, is_hopeless=self.tokens + tokens > most)
        self._add(tokens)
        return None

    def shrink(self, tokens: int) -> None:
        """Give so many back, that cannot be spent any more."""
        self._add(-min(tokens, self.tokens))

    def settle(self, at: Moment, *, spent: int) -> None:
        """It is over, and so many were spent. Nothing happens when it was settled."""
        if self.is_settled:
            return
        self.is_settled = True
        for subject, bound in self._accounts:
            subject.settle(bound.limits, at, reserved=self.tokens, spent=spent)
        self._ledger.reserved_tokens -= self.tokens

    def _add(self, tokens: int) -> None:
        for subject, _ in self._accounts:
            subject.reserve(tokens)
        self.tokens += tokens
        self._ledger.reserved_tokens += tokens

    def __del__(self) -> None:
        """Whoever had it forgot to settle it: a fault of ours, that must not be a debt."""
        if not self.is_settled and self.tokens:
            self._ledger.leaked_tokens += self.tokens
            self.shrink(self.tokens)


def _most_tokens(limits: Limits) -> float:
    """That one request could ever have."""
    known = [one for one in (limits.tokens_per_minute, limits.tokens_per_day) if one is not None]
    return min(known, default=float("inf"))


def _refusal(bound: Bound, shortage: Shortage, *, is_hopeless: bool = False) -> Refusal:
    excess, limit, retry_after_s = shortage
    return Refusal(
        subject=bound.subject,
        excess=excess,
        limit=limit,
        retry_after_s=retry_after_s,
        is_hopeless=is_hopeless,
    )
