"""Which idle prefix goes first."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agent.engine.benefit import Idle, Ledger

CELLS = 100


def ledger(*touched: int) -> Ledger:
    """Holders touched in this order, at ticks 1, 2, …"""
    made = Ledger()
    for tick, holder in enumerate(touched, 1):
        made.touch(holder, tick)
    return made


def idle(holder: int, cost: float = 100.0, cells: int = CELLS, *, pinned: bool = False) -> Idle:
    return Idle(holder=holder, cells=cells, recompute_cost=cost, pinned=pinned)


def order(made: Ledger, *candidates: Idle) -> list[int]:
    """Who goes first, second, … when nothing is used in between."""
    left = list(candidates)
    gone = []
    while (first := made.first_to_go(left)) is not None:
        left.remove(first)
        gone.append(first.holder)
    return gone


@pytest.mark.parametrize(
    ("touched", "candidates", "expected"),
    [
        pytest.param((1, 2), (idle(1, 90.0), idle(2, 50.0)), [2, 1], id="the cheaper to recompute"),
        pytest.param((1, 2), (idle(1), idle(2, cells=200)), [2, 1], id="the one freeing more"),
        pytest.param((1, 1, 2), (idle(1), idle(2)), [2, 1], id="the less used"),
        pytest.param((2, 1), (idle(1), idle(2)), [2, 1], id="of equals the longest unused"),
        pytest.param((1,), (idle(1), idle(2)), [2, 1], id="the one never touched"),
        pytest.param((), (idle(2), idle(1)), [1, 2], id="of strangers the lowest number"),
        pytest.param((1, 2), (idle(1), idle(2, 0.0, 0)), [2, 1], id="the one others have whole"),
        pytest.param(
            (1, 2), (idle(1, 1.0, pinned=True), idle(2)), [2, 1], id="the pinned after all others"
        ),
        pytest.param(
            (1, 2),
            (idle(1, pinned=True), idle(2, 50.0, pinned=True)),
            [2, 1],
            id="of pinned ones the cheaper",
        ),
    ],
)
def test_the_first_to_go_is(
    touched: tuple[int, ...], candidates: tuple[Idle, ...], expected: list[int]
) -> None:
    assert order(ledger(*touched), *candidates) == expected


def test_nobody_idle_means_nobody_goes() -> None:
    assert ledger(1).first_to_go([]) is None


def test_value_is_what_recomputing_costs_per_cell_weighted_by_uses() -> None:
    made = ledger(1, 2, 2, 2)
    assert made.value(1, 50, 200.0) == pytest.approx(4.0)
    assert made.value(2, 50, 200.0) == pytest.approx(8.0)


def test_what_nobody_uses_any_more_is_overtaken_however_popular_it_was() -> None:
    made = ledger(*[1] * 1000)
    for newcomer in range(2, 100):
        made.touch(newcomer, 1000 + newcomer)
        gone = made.first_to_go([idle(1), idle(newcomer)])
        assert gone is not None
        if gone.holder == 1:
            break
        made.evicted(gone)
    assert newcomer <= 12


def test_a_prefix_that_stays_in_use_outlives_newcomers_used_once() -> None:
    made = ledger(1, 1)
    for newcomer in range(2, 100):
        made.touch(1, 2 * newcomer)
        made.touch(newcomer, 2 * newcomer + 1)
        gone = made.first_to_go([idle(1), idle(newcomer)])
        assert gone == idle(newcomer)
        made.evicted(gone)


def test_freshness_grows_with_uses_and_falls_as_others_go() -> None:
    made = ledger(1, 2, 2, 2)
    assert [made.freshness(holder) for holder in (1, 2, 3)] == pytest.approx([1.0, 2.0, 0.0])
    made.evicted(idle(1))
    assert made.freshness(2) == pytest.approx(1.0)
    made.touch(2, 9)
    assert made.freshness(2) == pytest.approx(2.32, abs=0.01)


def test_a_forgotten_holder_begins_anew() -> None:
    made = ledger(1, 1, 1)
    made.forget(1)
    assert (len(made), made.value(1, CELLS, 100.0)) == (0, 0.0)
    made.touch(1, 9)
    assert made.value(1, CELLS, 100.0) == pytest.approx(1.0)


def test_forgetting_an_unknown_holder_has_no_effect() -> None:
    made = ledger(1)
    made.forget(2)
    assert len(made) == 1


def test_giving_up_a_stranger_does_not_make_the_ledger_younger() -> None:
    made = ledger(1, 2)
    made.evicted(idle(1))
    made.evicted(idle(3))
    made.touch(4, 5)
    assert made.value(4, CELLS, 100.0) == pytest.approx(2.0)


@given(st.lists(st.tuples(st.integers(1, 500), st.floats(0, 1e6)), min_size=2, max_size=8))
def test_uses_and_ages_equal_the_loss_per_cell_decides(sizes: list[tuple[int, float]]) -> None:
    candidates = [idle(at, cost, cells) for at, (cells, cost) in enumerate(sizes)]
    gone = ledger(*range(len(sizes))).first_to_go(candidates)
    assert gone is not None
    per_cell = [one.recompute_cost / one.cells for one in candidates]
    assert gone.recompute_cost / gone.cells == pytest.approx(min(per_cell))


class LedgerUnderChurn(RuleBasedStateMachine):
    """A cache of a few places whose holders are touched, given up and forgotten at random."""

    holders = st.integers(0, 7)

    @initialize()
    def begin(self) -> None:
        self.ledger = Ledger()
        self.tick = 0
        self.known: set[int] = set()
        self.given_up = 0.0

    @rule(holder=holders)
    def touch(self, holder: int) -> None:
        self.tick += 1
        self.ledger.touch(holder, self.tick)
        self.known.add(holder)

    @rule(holder=holders)
    def forget(self, holder: int) -> None:
        self.ledger.forget(holder)
        self.known.discard(holder)

    @rule(data=st.data(), pinned=st.sets(holders))
    def evict(self, data: st.DataObject, pinned: set[int]) -> None:
        candidates = [
            idle(holder, data.draw(st.floats(0, 1000)), pinned=holder in pinned)
            for holder in sorted(self.known)
        ]
        gone = self.ledger.first_to_go(candidates)
        if gone is None:
            assert not candidates
            return
        assert not gone.pinned or all(one.pinned for one in candidates)
        self.given_up = max(self.given_up, self.value(gone))
        for one in candidates:
            assert one.pinned > gone.pinned or self.value(one) >= self.value(gone)
        self.ledger.evicted(gone)
        self.known.discard(gone.holder)

    @rule(holder=holders)
    def what_is_used_now_is_worth_more_than_what_was_given_up(self, holder: int) -> None:
        self.touch(holder)
        assert self.value(idle(holder)) > self.given_up

    @invariant()
    def entries_are_those_of_touched_holders(self) -> None:
        assert len(self.ledger) == len(self.known)

    def value(self, one: Idle) -> float:
        return self.ledger.value(one.holder, one.cells, one.recompute_cost)


LedgerUnderChurn.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None
)
TestLedgerUnderChurn = LedgerUnderChurn.TestCase
