"""Who holds which cells of a unified KV cache: what a sequence would free, what is left. Pure.

A cell is one token's keys and values. A sequence takes cells as it grows, and may begin with the
first cells of another one, which both hold from then on; a cell is free again when nobody holds
it. Cells are counted in segments, runs that the same sequences hold:

    sequence 1:  [100 held by 1, 2] [20 held by 1]
    sequence 2:  [100 held by 1, 2] [ 7 held by 2]

Sharing starts at the first cell, so the holders of a segment have it, and everything before it,
at the same place of their rows. Costs: s segments of a sequence, h holders of one of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Segment:
    """`cells` (>= 1) in a row that exactly `holders` hold."""

    cells: int
    holders: set[int]


class Cells:
    """Counts for `capacity` cells. A sequence never heard of is an empty one."""

    def __init__(self, capacity: int) -> None:
        self._rows: dict[int, list[Segment]] = {}
        self.capacity = capacity
        self.used = 0  # cells that somebody holds

    @property
    def segments(self) -> int:
        """Distinct segments of all sequences, at most two a sequence. O(all segments)."""
        return len({id(segment) for row in self._rows.values() for segment in row})

    @property
    def free(self) -> int:
        """Cells that nobody holds."""
        return self.capacity - self.used

    def length(self, sequence: int) -> int:
        """Cells that a sequence holds, shared ones included. O(s)."""
        return sum(segment.cells for segment in self._rows.get(sequence, ()))

    def exclusive(self, sequence: int) -> int:
        """Cells that would be free if a sequence were trimmed to nothing. O(1)."""
        row = self._rows.get(sequence)
        # segments of one holder lie at the end and are never two in a row
        return row[-1].cells if row and len(row[-1].holders) == 1 else 0

    def held_by(self, sequences: Iterable[int]) -> int:
        """Cells that any of these sequences holds. O(their segments)."""
        rows = (self._rows.get(sequence, ()) for sequence in sequences)
        return sum({id(segment): segment.cells for row in rows for segment in row}.values())

    def grow(self, sequence: int, count: int) -> None:
        """Give a sequence new cells of its own. ValueError: fewer are free. O(1)."""
        _refuse_negative(count)
        if count > self.free:
            raise ValueError(f"sequence {sequence} needs {count} cells, {self.free} are free")
        if count == 0:
            return
        self.used += count
        row = self._rows.setdefault(sequence, [])
        if row and len(row[-1].holders) == 1:
            row[-1].cells += count
        else:
            row.append(Segment(count, {sequence}))

    def share(self, source: int, target: int, count: int) -> None:
        """Let an empty sequence begin with the first `count` cells of another. O(s + h).

        ValueError: the target holds cells already, or the source has fewer.
        """
        _refuse_negative(count)
        if target in self._rows:
            raise ValueError(f"sequence {target} must be trimmed to 0 before it shares cells")
        if count > self.length(source):
            raise ValueError(f"sequence {source} has {self.length(source)} cells, not {count}")
        if count == 0:
            return
        kept = self._cut(source, count)
        self._rows[target] = self._rows[source][:kept]
        for segment in self._rows[target]:
            segment.holders.add(target)

    def trim(self, sequence: int, length: int) -> int:
        """Keep at most the first `length` cells; how many that sets free. O(s h)."""
        _refuse_negative(length)
        if length >= self.length(sequence):
            return 0
        kept = self._cut(sequence, length)
        row = self._rows.pop(sequence)
        lost = row[kept:]
        if kept:
            self._rows[sequence] = row[:kept]
        for segment in lost:
            segment.holders.remove(sequence)
        freed = sum(segment.cells for segment in lost if not segment.holders)
        self.used -= freed
        others = [segment for segment in lost if segment.holders]
        if others:
            # those before the last lost the same holder: they differ as much as they did
            self._join(others[-1], kept + len(others) - 1)
        return freed

    def _cut(self, sequence: int, length: int) -> int:
        """Let a segment end after `length` cells of a row; how many end up to there."""
        at = 0
        row = self._rows[sequence]
        while length and length >= row[at].cells:
            length -= row[at].cells
            at += 1
        if length == 0:
            return at
        upper = row[at]
        lower = Segment(upper.cells - length, set(upper.holders))
        upper.cells = length
        for holder in upper.holders:
            self._rows[holder].insert(at + 1, lower)
        return at + 1

    def _join(self, segment: Segment, at: int) -> None:
        """Undo a cut where the same sequences hold both sides; `at` is the place in their rows."""
        holders = segment.holders
        following = self._rows[next(iter(holders))][at + 1 : at + 2]
        if following and len(following[0].holders) == len(holders):
            segment.cells += following[0].cells
            for holder in holders:
                del self._rows[holder][at + 1]


def _refuse_negative(count: int) -> None:
    if count < 0:
        raise ValueError(f"{count} cells: give 0 or more")
