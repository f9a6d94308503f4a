"""What became of the work of each agent and model: plain numbers, added once a generation.

Bounded: of more than 256 names those that were not heard of for longest are counted together. Where
agents get new names at each start the living ones keep their own.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

MAX_NAMES = 256
OTHER = "other"


class Tally(Struct):
    """Since the balancer started. `requests` are those that ended there, well or not: what left on
    its own is neither `successful` nor `failed`."""

    requests: int = 0
    successful: int = 0
    failed: int = 0
    response_s: float = 0.0
    """Of the successful ones together."""
    tokens: int = 0
    """Of their prompts and answers."""
    generated: int = 0
    """Tokens that were generated in slots that are free again, whatever became of them."""

    def succeeded(self, *, response_s: float, tokens: int) -> None:
        """One ended well."""
        self.requests += 1
        self.successful += 1
        self.response_s += response_s
        self.tokens += tokens

    def broke(self) -> None:
        """One failed there; another agent may have gone on with it."""
        self.requests += 1
        self.failed += 1

    def left(self) -> None:
        """One ended because nobody wanted it any more."""
        self.requests += 1

    def add(self, other: Tally) -> None:
        """All of another one."""
        self.requests += other.requests
        self.successful += other.successful
        self.failed += other.failed
        self.response_s += other.response_s
        self.tokens += other.tokens
        self.generated += other.generated


class Tallies:
    """By name, those that were heard of last at the end."""

    def __init__(self, limit: int = MAX_NAMES) -> None:
        self._limit = limit
        self._by_name: dict[str, Tally] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def of(self, name: str) -> Tally:
        """This name's, to be added to at once: the next name may take its place."""
        tally = self._by_name.pop(name, None) or Tally()
        self._by_name[name] = tally
        if len(self._by_name) - (OTHER in self._by_name) > self._limit:
            self._count_oldest_with_others()
        return tally

    def _count_oldest_with_others(self) -> None:
        oldest = next(name for name in self._by_name if name != OTHER)
        left = self._by_name.pop(oldest)
        self._by_name.setdefault(OTHER, Tally()).add(left)

    def get(self, name: str) -> Tally:
        """This name's as it is; an empty one where nothing was counted."""
        return self._by_name.get(name) or Tally()
