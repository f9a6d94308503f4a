"""Which models were served until lately: a request for one of them waits instead of failing."""

from __future__ import annotations

from collections.abc import Iterable

MAX_REMEMBERED = 4096
"""More names than this and the ones that left first are forgotten early."""


class KnownModels:
    """Names with the time when their last agent left."""

    def __init__(self) -> None:
        self._left_s: dict[str, float] = {}

    @property
    def knows_any(self) -> bool:
        """Whether a model was ever served and left."""
        return bool(self._left_s)

    def note_left(self, names: Iterable[str], *, now: float) -> None:
        """Nobody serves these any more."""
        for name in names:
            self._left_s.pop(name, None)
            self._left_s[name] = now
        while len(self._left_s) > MAX_REMEMBERED:
            del self._left_s[next(iter(self._left_s))]

    def remembers(self, name: str, *, now: float, memory_s: float) -> bool:
        """Whether the name left less than `memory_s` ago."""
        left_s = self._left_s.get(name)
        return left_s is not None and now - left_s < memory_s
