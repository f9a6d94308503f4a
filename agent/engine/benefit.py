"""Which idle prefix to give up first: the one whose loss costs least for the room it frees. Pure.

GreedyDual-Size-Frequency (Cherkasova, "Improving WWW proxies performance with
Greedy-Dual-Size-Frequency caching policy", HPL-98-69R1), with cells for bytes:

    value = age + log2(1 + uses) * cost of recomputing what would be lost / cells that it frees

The age is the value of the dearest prefix given up so far. A prefix takes the age of the moment it
is used, so one that nobody uses any more is overtaken by newer ones, however popular it was; the
logarithm, which is not in the paper, makes that a few turnovers of the cache, not hundreds.

Nothing is kept about what a holder has: cells and costs are the caller's, as of now, since what
others share of it changes. Cost may be in any unit, the same for all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import log2


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """A prefix that could go: the `cells` its loss frees, the cost of recomputing them.

    Both leave out what another holder has too. `pinned`: to be kept warm.
    """

    holder: int
    cells: int
    recompute_cost: float
    pinned: bool = False


@dataclass(slots=True)
class Uses:
    """How often a holder was used; the tick and the ledger's age at the last time."""

    count: int = 0
    last_tick: int = 0
    age: float = 0.0


class Ledger:
    """How much each holder is used. Entries live from the first `touch` to `forget`."""

    def __init__(self) -> None:
        self._uses: dict[int, Uses] = {}
        self._age = 0.0

    def __len__(self) -> int:
        return len(self._uses)

    def touch(self, holder: int, now_tick: int) -> None:
        """A holder was filled, or a request began with what it has. Ticks only go up. O(1)."""
        uses = self._uses.setdefault(holder, Uses())
        uses.count += 1
        uses.last_tick = now_tick
        uses.age = self._age

    def value(self, holder: int, cells: int, recompute_cost: float) -> float:
        """What keeping a holder is worth, per cell; to be compared only with values of now. O(1).

        A holder that frees no cells is in others as a whole: no more than its age. One that was
        never touched is worth nothing.
        """
        uses = self._uses.get(holder)
        if uses is None:
            return 0.0
        saved = log2(1 + uses.count) * recompute_cost / cells if cells else 0.0
        return uses.age + saved

    def freshness(self, holder: int) -> float:
        """log2(1 + uses), less what the ledger aged since the last use; below 0: overtaken. O(1).

        It needs costs that are counted in cells: to recompute one costs 1.
        """
        uses = self._uses.get(holder)
        return log2(1 + uses.count) + uses.age - self._age if uses else 0.0

    def first_to_go(self, idle: Iterable[Idle]) -> Idle | None:
        """The least valuable, the longest unused among equals, a pinned one last; None: nobody."""
        return min(idle, key=self._order, default=None)

    def evicted(self, gone: Idle) -> None:
        """A holder was given up: the ledger ages to its value, and forgets it. O(1)."""
        value = self.value(gone.holder, gone.cells, gone.recompute_cost)
        self._age = max(self._age, value)
        self.forget(gone.holder)

    def forget(self, holder: int) -> None:
        """A holder has something else now, or is gone for other reasons. Unknown: no effect."""
        self._uses.pop(holder, None)

    def _order(self, idle: Idle) -> tuple[bool, float, int, int]:
        value = self.value(idle.holder, idle.cells, idle.recompute_cost)
        uses = self._uses.get(idle.holder)
        return idle.pinned, value, uses.last_tick if uses else 0, idle.holder
