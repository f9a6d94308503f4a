"""Whether something that should move stands still. Pure."""

from __future__ import annotations

from collections.abc import Hashable


class Stall:
    """Looked at now and then; standing still is allowed to whoever has a reason."""

    __slots__ = (
        "_progress",
        "_since",
    )

    def __init__(self, now: float) -> None:
        self._progress: Hashable = None
        self._since = now

    def lasts(self, progress: Hashable, now: float, *, is_excused: bool) -> float:
        """Seconds since `progress` was another, 0 while it is excused."""
        if is_excused or progress != self._progress:
            self._progress, self._since = progress, now
        return now - self._since
