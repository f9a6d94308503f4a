"""What a limit says, and what is left of it. Pure data."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from balancer.access import Limits

MINUTE_S = 60.0
SECOND_S = 1.0
DAY_S = 86_400

Excess = Literal["requests", "burst", "concurrency", "tokens", "requests_of_day", "tokens_of_day"]
"""Which of a subject's limits a request would pass."""


class Bound(Struct, frozen=True):
    """A subject and what it may have: a key, an address, or one of them on a class of routes."""

    subject: str
    limits: Limits


class Moment(Struct, frozen=True):
    """When a decision is made."""

    now_s: float
    """Of a clock that never goes back, for windows."""
    unix_s: float
    """Of the calendar's, for days."""

    @property
    def day(self) -> int:
        """Days since 1970 began, of UTC."""
        return int(self.unix_s // DAY_S)

    @property
    def left_of_day_s(self) -> float:
        """Seconds until the next day begins."""
        return (self.day + 1) * DAY_S - self.unix_s


class Standing(Struct, frozen=True):
    """What is left of one limit: as answers' headers tell it."""

    limit: int
    remaining: int
    reset_s: float
    """Seconds until all of it is there again."""

    def is_stricter_than(self, other: Standing) -> bool:
        """Whether less is left; where it is the same, of less."""
        return (self.remaining, self.limit) < (other.remaining, other.limit)


class Refusal(Struct, frozen=True, kw_only=True):
    """Why a request may not have what it asks for now."""

    subject: str
    excess: Excess
    limit: int
    retry_after_s: float
    """When it may have it as far as is known: reservations may end earlier or later."""
    is_hopeless: bool = False
    """It asks for more than the limit ever leaves."""
