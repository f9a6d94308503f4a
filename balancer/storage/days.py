"""What was had of the days' limits: the contract of whoever keeps it for the next start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from balancer.policy.limits.day import DayCount


class DayStore(Protocol):
    """Keeps the counts. Every method may raise `StoreFailed`, and cancelling is safe: what was
    begun is then done or not done as a whole."""

    async def load(self, from_day: int) -> list[DayCount]:
        """Those of this day and later ones; of more than fit, those who had most."""

    async def save(self, counts: Sequence[DayCount], *, today: int) -> None:
        """Keep these in place of earlier ones of the same subjects; what is older than today
        goes."""

    async def close(self) -> None:
        """Nothing is asked after it."""
