"""Who holds which KV cells, against a plain list of cell numbers a sequence."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agent.engine.cells import Cells


def cells(capacity: int = 1000, **lengths: int) -> Cells:
    """Sequences named after their numbers, each with cells of its own: s1=100."""
    made = Cells(capacity)
    for name, count in lengths.items():
        made.grow(int(name[1:]), count)
    return made


def test_cells_of_its_own_are_used_until_the_sequence_lets_go() -> None:
    made = cells(s1=100, s2=50)
    assert (made.used, made.free, made.exclusive(1)) == (150, 850, 100)
    assert made.trim(1, 0) == 100
    assert (made.used, made.length(1)) == (50, 0)


def test_shared_cells_count_once() -> None:
    made = cells(s1=100)
    made.share(1, 2, 80)
    made.grow(2, 7)
    assert made.used == 107
    assert (made.length(2), made.exclusive(2), made.exclusive(1)) == (87, 7, 20)


def test_shared_cells_are_free_when_the_last_holder_lets_go() -> None:
    made = cells(s1=100)
    made.share(1, 2, 80)
    made.share(2, 3, 30)
    assert made.trim(1, 0) == 20
    assert made.trim(3, 0) == 0
    assert made.exclusive(2) == 80
    assert made.trim(2, 0) == 80
    assert (made.used, made.segments) == (0, 0)


def test_what_some_hold_together_counts_shared_cells_once() -> None:
    made = cells(s1=100, s4=9)
    made.share(1, 2, 80)
    made.grow(2, 7)
    assert [made.held_by(some) for some in ([1, 2], [2], [3], [2, 4])] == [107, 87, 0, 96]


def test_a_sequence_grows_token_by_token_without_new_segments() -> None:
    made = cells(s1=5)
    for _ in range(100):
        made.grow(1, 1)
    assert (made.length(1), made.segments) == (105, 1)


@pytest.mark.parametrize(
    ("length", "freed", "left"), [(200, 0, 120), (120, 0, 120), (110, 10, 110), (80, 40, 80)]
)
def test_trimming_frees_what_no_other_sequence_holds(length: int, freed: int, left: int) -> None:
    made = cells(s1=80)
    made.share(1, 2, 80)
    made.grow(2, 40)
    assert (made.trim(2, length), made.length(2), made.length(1)) == (freed, left, 80)


def test_trimming_into_the_shared_part_leaves_it_to_the_other() -> None:
    made = cells(s1=80)
    made.share(1, 2, 80)
    made.grow(2, 40)
    assert made.trim(2, 30) == 40
    assert (made.exclusive(1), made.used) == (50, 80)


def test_cuts_that_nobody_needs_any_more_are_undone() -> None:
    made = cells(s1=100)
    for count in range(1, 100):
        made.share(1, 2, count)
        made.trim(2, 0)
    assert made.segments == 1


def test_a_cut_stays_while_its_two_sides_have_different_holders() -> None:
    made = cells(s1=10)
    made.share(1, 2, 10)
    made.share(1, 3, 10)
    made.grow(1, 5)
    made.trim(3, 0)
    assert [made.length(sequence) for sequence in (1, 2, 3)] == [15, 10, 0]
    assert made.segments == 2


def test_a_sequence_that_does_not_fit_is_refused_with_the_numbers_and_changes_nothing() -> None:
    made = cells(capacity=100, s1=90)
    with pytest.raises(ValueError, match="sequence 2 needs 11 cells, 10 are free"):
        made.grow(2, 11)
    made.grow(2, 10)
    assert made.free == 0


def test_only_an_empty_sequence_can_begin_with_the_cells_of_another() -> None:
    with pytest.raises(ValueError, match="trimmed to 0"):
        cells(s1=5, s2=1).share(1, 2, 3)


def test_no_more_can_be_shared_than_there_is() -> None:
    with pytest.raises(ValueError, match="has 5 cells, not 6"):
        cells(s1=5).share(1, 2, 6)


def test_none_shared_and_none_grown_leave_a_sequence_empty() -> None:
    made = cells(s1=5)
    made.share(1, 2, 0)
    made.grow(2, 0)
    made.share(1, 2, 5)
    assert made.length(2) == 5


def test_a_sequence_never_heard_of_is_empty() -> None:
    made = cells()
    assert (made.length(7), made.exclusive(7), made.trim(7, 0)) == (0, 0, 0)


def test_negative_counts_are_our_own_mistake() -> None:
    made = cells(s1=5)
    for call in (lambda: made.grow(1, -1), lambda: made.share(1, 2, -1), lambda: made.trim(1, -1)):
        with pytest.raises(ValueError, match="0 or more"):
            call()


class CellsAgainstNumbers(RuleBasedStateMachine):
    """The counts and, for each sequence, the numbers of its cells."""

    sequences = st.integers(0, 5)
    counts = st.integers(0, 12)

    @initialize(capacity=st.integers(10, 60))
    def begin(self, capacity: int) -> None:
        self.cells = Cells(capacity)
        self.capacity = capacity
        self.rows: dict[int, list[int]] = {number: [] for number in range(6)}
        self.next = 0

    @property
    def holders(self) -> Counter[int]:
        return Counter(cell for row in self.rows.values() for cell in row)

    @rule(sequence=sequences, count=counts)
    def grow(self, sequence: int, count: int) -> None:
        if count > self.capacity - len(self.holders):
            with pytest.raises(ValueError, match="are free"):
                self.cells.grow(sequence, count)
            return
        self.cells.grow(sequence, count)
        self.rows[sequence].extend(range(self.next, self.next + count))
        self.next += count

    @rule(data=st.data(), less=st.integers(0, 3))
    def share(self, data: st.DataObject, less: int) -> None:
        filled = [sequence for sequence, row in self.rows.items() if row]
        empty = [sequence for sequence, row in self.rows.items() if not row]
        if not filled or not empty:
            return
        source = data.draw(st.sampled_from(filled))
        target = data.draw(st.sampled_from(empty))
        count = max(0, len(self.rows[source]) - less)
        self.cells.share(source, target, count)
        self.rows[target] = self.rows[source][:count]

    @rule(sequence=sequences, length=counts)
    def trim(self, sequence: int, length: int) -> None:
        before = len(self.holders)
        freed = self.cells.trim(sequence, length)
        del self.rows[sequence][length:]
        assert freed == before - len(self.holders)

    @rule(sequence=sequences)
    def drop(self, sequence: int) -> None:
        expected = self.cells.exclusive(sequence)
        assert self.cells.trim(sequence, 0) == expected
        self.rows[sequence].clear()

    @invariant()
    def counts_are_those_of_the_cells(self) -> None:
        holders = self.holders
        assert self.cells.used == len(holders)
        assert self.cells.free == self.capacity - len(holders)
        for sequence, row in self.rows.items():
            assert self.cells.length(sequence) == len(row)
            assert self.cells.exclusive(sequence) == sum(holders[cell] == 1 for cell in row)

    @invariant()
    def no_segment_is_without_a_reason(self) -> None:
        held_by: dict[int, frozenset[int]] = {
            cell: frozenset(number for number, row in self.rows.items() if cell in row)
            for cell in self.holders
        }
        assert self.cells.segments == len(set(held_by.values()))


CellsAgainstNumbers.TestCase.settings = settings(
    max_examples=80, stateful_step_count=30, deadline=None
)
TestCellsAgainstNumbers = CellsAgainstNumbers.TestCase
