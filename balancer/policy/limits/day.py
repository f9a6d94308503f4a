"""What somebody had of a day of UTC. Pure."""

from __future__ import annotations

from msgspec import Struct

from balancer.policy.limits.amounts import DAY_S


class DayCount(Struct, frozen=True, kw_only=True):
    """What a subject had of one day, as it is kept."""

    subject: str
    day: int
    """Days since 1970 began."""
    requests: int
    tokens: int


class Day(Struct, kw_only=True):
    """Requests and tokens of one day; `reserved` goes on into the next."""

    day: int = 0
    requests: int = 0
    tokens: int = 0
    reserved: int = 0
    ends_s: float = 0.0
    """Unix seconds."""
    is_limited: bool = False
    """Whether a limit of days was asked about it."""
    told: tuple[int, int] = (0, 0)
    """Requests and tokens when they were last told."""

    def turn(self, day: int) -> None:
        """Begin a later day."""
        self.day, self.requests, self.tokens = day, 0, 0
        self.ends_s = float((day + 1) * DAY_S)

    def requests_left(self, limit: int) -> int:
        """Ask after `turn`."""
        return max(limit - self.requests, 0)

    def tokens_left(self, limit: int) -> int:
        """Ask after `turn`."""
        return max(limit - self.tokens - self.reserved, 0)

    @property
    def has_news(self) -> bool:
        """Whether it is not as it was told."""
        return self.told != (self.requests, self.tokens)

    def tell(self, subject: str) -> DayCount:
        """As it is now."""
        self.told = (self.requests, self.tokens)
        return DayCount(subject=subject, day=self.day, requests=self.requests, tokens=self.tokens)

    def take(self, count: DayCount) -> None:
        """Go on with what was had."""
        if count.day > self.day:
            self.turn(count.day)
        self.requests += count.requests
        self.tokens += count.tokens
        self.is_limited = True
