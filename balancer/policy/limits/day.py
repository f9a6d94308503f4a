"""What somebody had of a day of UTC. Pure."""

from __future__ import annotations

from msgspec import Struct

from balancer.policy.limits.amounts import DAY_S


class Day(Struct, kw_only=True):
    """Requests and tokens of one day; `reserved` goes on into the next."""

    day: int = 0
    requests: int = 0
    tokens: int = 0
    reserved: int = 0
    ends_s: float = 0.0
    """Unix seconds."""

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
