"""The account of all subjects: who came in, what is promised to whom, what was spent. Pure.

A request comes in under some bounds at once, and either all of them let it in or none counts it.
Then it may reserve tokens, which are settled once, whatever becomes of it. Nothing here waits, so
that between a decision and its effect nothing can come.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import islice

from balancer.access import Limits
from balancer.policy.limits.amounts import Bound, Moment, Refusal, Standing
from balancer.policy.limits.day import DayCount
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
        self.entries = 0
        """Requests that were let in and are not over."""
        self.reservations = 0
        """That are not settled."""
        self.reserved_tokens = 0
        """Promised now, to all requests."""
        self.leaked_reservations = 0
        """That were not settled although their request is over, or whose owner is gone."""
        self.settled_tokens = 0
        """Spent by all that was settled, each once however many bounds it was under."""

    def __len__(self) -> int:
        return len(self._subjects)

    def enter(self, bounds: Sequence[Bound], at: Moment) -> Entry | Refusal:
        """Let a request in under all of the bounds, or say which does not."""
        accounts = [
            (self._subject(bound.subject, at, has_day=bound.limits.has_day), bound)
            for bound in bounds
        ]
        for subject, bound in accounts:
            shortage = subject.shortage_of_requests(bound.limits, at)
            if shortage is not None:
                return _refusal(bound, shortage)
        for subject, bound in accounts:
            subject.enter(bound.limits, at)
        self.entries += 1
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

    def changed_days(self, at: Moment, *, most: int) -> list[DayCount]:
        """What those who have limits of days had of theirs, where it is not as it was told last;
        so many at once, the others when it is asked for again."""
        changed = (
            (name, subject.day)
            for name, subject in self._subjects.items()
            if subject.day.is_limited and subject.day.has_news and subject.day.day >= at.day
        )
        return [day.tell(name) for name, day in islice(changed, most)]

    def take_days(self, counts: Iterable[DayCount], at: Moment) -> None:
        """Go on with what was had before this ledger began; what is of days that are over, or more
        than there is room for, is left out; so is what a clock that went wrong has left."""
        for count in counts:
            is_near = at.day <= count.day <= at.day + 1
            if is_near and len(self._subjects) < self._most_subjects:
                self._subject(count.subject, at).day.take(count)

    def _subject(self, name: str, at: Moment, *, has_day: bool = False) -> Subject:
        """`has_day`: a limit of days is asked about."""
        subject = self._subjects.get(name)
        if subject is None:
            name = name if self._has_room(at, has_day=has_day) else OTHERS
            subject = self._subjects.setdefault(name, Subject())
        self._subjects.move_to_end(name)
        subject.look(at)
        return subject

    def _has_room(self, at: Moment, *, has_day: bool) -> bool:
        """Forget one that nothing is known of any more, if need be. Who has had something of its
        day gives way only to who has such a limit, too: else addresses, of which anybody has
        many, would give keys new days."""
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
            self._subjects.move_to_end(name)  # the next who comes looks behind it
            if has_day:
                forgettable = forgettable or name
        if forgettable is not None:
            del self._subjects[forgettable]
        return forgettable is not None


class Entry:
    """One request that was let in, until it leaves."""

    __slots__ = ("_came_s", "accounts", "is_over", "ledger", "reservations")

    def __init__(
        self, ledger: Ledger, accounts: list[tuple[Subject, Bound]], came_s: float
    ) -> None:
        self.ledger = ledger
        self.accounts = accounts
        self._came_s = came_s
        self.is_over = False
        self.reservations = 0
        """That are not settled."""

    @property
    def limits_tokens(self) -> bool:
        """Whether any of its bounds does."""
        return any(
            bound.limits.tokens_per_minute is not None or bound.limits.tokens_per_day is not None
            for _, bound in self.accounts
        )

    def tokens_left(self, at: Moment) -> int | None:
        """That could be promised to it now; None: as many as it likes."""
        left = []
        for subject, bound in self.accounts:
            subject.look(at)
            left.append(subject.tokens_left(bound.limits))
        return min((one for one in left if one is not None), default=None)

    def reserve(self, tokens: int, at: Moment) -> Reservation | Refusal:
        """Promise it so many, or say which bound does not let it have them."""
        return self.shortage(tokens, at) or Reservation(self, tokens)

    def shortage(self, tokens: int, at: Moment, *, has: int = 0) -> Refusal | None:
        """Which bound does not let it have so many, beside those that it `has`."""
        for subject, bound in self.accounts:
            subject.look(at)
            shortage = subject.shortage_of_tokens(bound.limits, at, tokens)
            if shortage is not None:
                is_hopeless = has + tokens > _most_tokens(bound.limits)
                return _refusal(bound, shortage, is_hopeless=is_hopeless)
        return None

    def leave(self, at: Moment) -> None:
        """It is over: what it reserved and did not settle has leaked. Nothing happens when it has
        left."""
        if self.is_over:
            return
        self.is_over = True
        for subject, _ in self.accounts:
            subject.leave(at.now_s - self._came_s)
        self.ledger.entries -= 1
        self.ledger.leaked_reservations += self.reservations

    def requests_standing(self, at: Moment) -> Standing | None:
        """What is left of requests by the strictest of its bounds; None: no bound."""
        strictest = None
        for subject, bound in self.accounts:
            subject.look(at)
            strictest = stricter(strictest, subject.standing_of_requests(bound.limits, at))
        return strictest

    def tokens_standing(self, at: Moment) -> Standing | None:
        """What is left of tokens by the strictest of its bounds; None: no bound."""
        strictest = None
        for subject, bound in self.accounts:
            subject.look(at)
            strictest = stricter(strictest, subject.standing_of_tokens(bound.limits, at))
        return strictest


class Reservation:
    """Tokens that are promised, until they are settled to what was spent."""

    __slots__ = ("_entry", "is_settled", "tokens")

    def __init__(self, entry: Entry, tokens: int) -> None:
        """Made where `Entry.shortage` found none."""
        self._entry = entry
        self.is_settled = False
        self.tokens = 0
        entry.reservations += 1
        entry.ledger.reservations += 1
        self._add(tokens)

    def extend(self, tokens: int, at: Moment) -> Refusal | None:
        """Promise so many more, or say which bound does not let it have them."""
        if self.is_settled:
            raise AssertionError("a reservation that is settled promises no more")
        refusal = self._entry.shortage(tokens, at, has=self.tokens)
        if refusal is None:
            self._add(tokens)
        return refusal

    def shrink(self, tokens: int) -> None:
        """Give so many back, that cannot be spent any more."""
        self._add(-min(tokens, self.tokens))

    def settle(self, at: Moment, *, spent: int) -> None:
        """It is over, and so many were spent: no more count than were promised, whatever an agent
        says. Nothing happens when it was settled."""
        if self.is_settled:
            return
        spent = min(spent, self.tokens)
        for subject, bound in self._entry.accounts:
            subject.settle(bound.limits, at, reserved=self.tokens, spent=spent)
        ledger = self._entry.ledger
        ledger.reserved_tokens -= self.tokens
        ledger.settled_tokens += spent
        ledger.leaked_reservations -= self._entry.is_over
        self._end()

    def _add(self, tokens: int) -> None:
        for subject, _ in self._entry.accounts:
            subject.reserve(tokens)
        self.tokens += tokens
        self._entry.ledger.reserved_tokens += tokens

    def _end(self) -> None:
        self.is_settled = True
        self._entry.reservations -= 1
        self._entry.ledger.reservations -= 1

    def __del__(self) -> None:
        """Whoever had it forgot to settle it: a fault of ours, that must not be a debt."""
        if self.is_settled:
            return
        self.shrink(self.tokens)
        self._entry.ledger.leaked_reservations += not self._entry.is_over
        self._end()


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
