"""Everything that is counted of one subject. Pure."""

from __future__ import annotations

from collections.abc import Callable

from balancer.access import Limits
from balancer.policy.limits.amounts import DAY_S, Excess, Moment, Standing
from balancer.policy.limits.arrivals import Arrivals
from balancer.policy.limits.day import Day
from balancer.policy.limits.spent_tokens import SpentTokens

Shortage = tuple[Excess, int, float]
"""Which limit, how much it is, and seconds until there is more."""

UNMEASURED_HELD_S = 1.0
"""How long a request is taken to last before one of the subject's has ended."""
_WEIGHT_OF_NEWEST = 0.1


class Subject:
    """A key, an address, a class of routes of one of them."""

    __slots__ = ("arrivals", "day", "held_s", "looked", "running", "tokens")

    def __init__(self) -> None:
        self.arrivals = Arrivals()
        self.tokens = SpentTokens()
        self.day = Day()
        self.running = 0
        self.held_s = UNMEASURED_HELD_S
        """A running mean of how long its requests last."""
        self.looked: Moment | None = None
        """When what was past was dropped last."""

    def look(self, at: Moment) -> None:
        """Drop what is past. A calendar that goes back over midnight makes no new day; one that was
        days ahead does, as its day would last for as long."""
        if self.looked is at:
            return
        self.looked = at
        self.arrivals.forget(at.now_s)
        self.tokens.forget(at.now_s)
        if not self.day.ends_s - 2 * DAY_S <= at.unix_s < self.day.ends_s:
            self.day.turn(at.day)

    @property
    def is_idle(self) -> bool:
        """Whether forgetting it would change nothing but the day's sums. Ask after `look`."""
        return not (self.running or len(self.arrivals)) and self.tokens.is_empty

    @property
    def has_history(self) -> bool:
        """Whether sums of a day would be lost that somebody is held to."""
        day = self.day
        return day.is_limited and bool(day.requests or day.tokens or day.reserved)

    def shortage_of_requests(self, limits: Limits, at: Moment) -> Shortage | None:
        """Why one more request may not come in now. Ask after `look`."""
        if limits.concurrent is not None and self.running >= limits.concurrent:
            return "concurrency", limits.concurrent, self.held_s / max(self.running, 1)
        day_limit = limits.requests_per_day
        if day_limit is not None and not self.day.requests_left(day_limit):
            return "requests_of_day", day_limit, at.left_of_day_s
        minute_limit = limits.requests_per_minute
        if minute_limit is None:
            return None
        wait_s = self.arrivals.wait_s(at.now_s, minute_limit)
        if wait_s is not None:
            return "requests", minute_limit, wait_s
        if limits.burst is None:
            return None
        wait_s = self.arrivals.burst_wait_s(at.now_s, limits.burst)
        return None if wait_s is None else ("burst", limits.burst, wait_s)

    def shortage_of_tokens(self, limits: Limits, at: Moment, tokens: int) -> Shortage | None:
        """Why so many tokens may not be promised now. Ask after `look`."""
        day_limit, minute_limit = limits.tokens_per_day, limits.tokens_per_minute
        if day_limit is not None and self.day.tokens_left(day_limit) < tokens:
            return "tokens_of_day", day_limit, at.left_of_day_s
        if minute_limit is None:
            return None
        wait_s = self.tokens.wait_s(at.now_s, tokens=tokens, limit=minute_limit)
        return None if wait_s is None else ("tokens", minute_limit, wait_s)

    def enter(self, limits: Limits, at: Moment) -> None:
        """A request came in."""
        self.running += 1
        self.day.requests += 1
        if limits.has_day:
            self.day.is_limited = True
        if limits.requests_per_minute is not None:
            self.arrivals.note(at.now_s)

    def leave(self, held_s: float) -> None:
        """A request that came in is over, after so long."""
        self.running -= 1
        self.held_s += _WEIGHT_OF_NEWEST * (held_s - self.held_s)

    def reserve(self, tokens: int) -> None:
        """Promise so many."""
        self.tokens.reserved += tokens
        self.day.reserved += tokens

    def settle(self, limits: Limits, at: Moment, *, reserved: int, spent: int) -> None:
        """What was promised is over."""
        self.look(at)
        self.day.reserved -= reserved
        self.day.tokens += spent
        counted = 0 if limits.tokens_per_minute is None else spent
        self.tokens.settle(at.now_s, reserved=reserved, spent=counted)

    def tokens_left(self, limits: Limits) -> int | None:
        """That may be promised; None: as many as one likes. Ask after `look`."""
        left = [
            self.tokens.left(limits.tokens_per_minute)
            if limits.tokens_per_minute is not None
            else None,
            self.day.tokens_left(limits.tokens_per_day)
            if limits.tokens_per_day is not None
            else None,
        ]
        return min((one for one in left if one is not None), default=None)

    def standing_of_requests(self, limits: Limits, at: Moment) -> Standing | None:
        """What is left of requests, by the stricter of minute and day. Ask after `look`."""
        minute = (
            None
            if limits.requests_per_minute is None
            else self.arrivals.standing(at.now_s, limits.requests_per_minute)
        )
        return stricter(minute, _of_day(limits.requests_per_day, self.day.requests_left, at))

    def standing_of_tokens(self, limits: Limits, at: Moment) -> Standing | None:
        """What is left of tokens, by the stricter of minute and day. Ask after `look`."""
        minute = (
            None
            if limits.tokens_per_minute is None
            else self.tokens.standing(at.now_s, limits.tokens_per_minute)
        )
        return stricter(minute, _of_day(limits.tokens_per_day, self.day.tokens_left, at))


def _of_day(limit: int | None, left: Callable[[int], int], at: Moment) -> Standing | None:
    """What is `left` of a day's limit, if there is one."""
    return None if limit is None else Standing(limit, left(limit), at.left_of_day_s)


def stricter(one: Standing | None, other: Standing | None) -> Standing | None:
    """Of two limits that apply, the one that is reached first."""
    if one is None or other is None:
        return other if one is None else one
    return other if other.is_stricter_than(one) else one
