"""Guessing next tokens, and how many of the guesses are worth checking."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.engine import speculation
from agent.engine.pace import ASK_EVERY, ASKED_TOKENS, MOST_DRAFTED, DecodeCosts, Pace
from agent.engine.speculation import (
    LEAST_MATCH,
    LONGEST_MATCH,
    TRUST,
    Ints,
    NgramDrafter,
    Speculation,
)

few_tokens = st.lists(st.integers(0, 3), max_size=60)


def ints(tokens: Sequence[int]) -> Ints:
    return np.array(tokens, dtype=np.int32)


def drafted(known: Sequence[int], most: int = 8, *, ends: tuple[int, ...] = ()) -> list[int]:
    drafts: list[int] = NgramDrafter(ints(known), ends=ends).draft(most).tolist()
    return drafts


def naive(text: list[int], most: int) -> list[int]:
    """The specification: try lengths from the longest, places from the latest."""
    for agreed in range(min(LONGEST_MATCH, len(text) - 1), LEAST_MATCH - 1, -1):
        for after in range(len(text) - 1, agreed - 1, -1):
            if text[after - agreed : after] == text[len(text) - agreed :]:
                period = text[after:]
                count = min(most, TRUST * agreed)
                return [period[at % len(period)] for at in range(count)]
    return []


def test_what_followed_the_same_tokens_before_is_drafted() -> None:
    assert drafted([1, 2, 3, 4, 5, 9, 1, 2]) == [3, 4, 5, 9]


def test_nothing_is_drafted_after_a_single_token_that_agrees() -> None:
    assert drafted([1, 2, 3, 4, 9, 2]) == []


@pytest.mark.parametrize("known", [[], [7], [7, 7]])
def test_nothing_is_drafted_from_next_to_nothing(known: list[int]) -> None:
    assert drafted(known) == []


def test_the_longest_match_wins_over_a_later_one() -> None:
    assert drafted([1, 2, 3, 50, 9, 2, 3, 60, 9, 1, 2, 3], 1) == [50]


def test_of_equally_long_matches_the_latest_wins() -> None:
    assert drafted([8, 2, 3, 50, 9, 2, 3, 60, 7, 2, 3], 1) == [60]


def test_of_very_many_matches_the_latest_are_looked_at() -> None:
    known = [token for at in range(1000) for token in (1, 2, 100 + at)]
    assert drafted([*known, 1, 2], 1) == [1099]


def test_what_repeats_is_drafted_on_and_on() -> None:
    assert drafted([1, 2, 3] * 4, 8) == [1, 2, 3, 1, 2, 3, 1, 2]


def test_a_draft_ends_with_the_first_end_token() -> None:
    known = [1, 2, 3, 4, 99, 5, 6, 7, 1, 2, 3]
    assert drafted(known, ends=(98, 99)) == [4, 99]


@given(known=few_tokens, later=st.lists(few_tokens, max_size=4), most=st.integers(0, 20))
def test_drafts_equal_those_of_a_naive_search(
    known: list[int], later: list[list[int]], most: int
) -> None:
    drafter = NgramDrafter(ints(known))
    text = list(known)
    for tokens in later:
        drafter.accept(tokens)
        text += tokens
        got = drafter.draft(most)
        assert got.dtype == np.int32
        assert got.tolist() == naive(text, most)


@given(
    known=few_tokens,
    later=st.lists(few_tokens, max_size=8),
    most=st.integers(0, 20),
    window=st.integers(1, 16),
)
def test_only_the_window_is_searched_and_kept(
    known: list[int], later: list[list[int]], most: int, window: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speculation, "WINDOW", window)
        drafter = NgramDrafter(ints(known))
        text = list(known)
        for tokens in later:
            drafter.accept(tokens)
            text += tokens
            assert drafter.draft(most).tolist() == naive(text[-window:], most)
            assert drafter.size <= max(512, 2 * window)


def test_memory_stays_bounded_however_long_the_text_gets() -> None:
    drafter = NgramDrafter(ints(range(100_000)))
    for _ in range(10):
        drafter.accept(range(100_000))
    assert drafter.size <= 2 * speculation.WINDOW


class Oracle:
    """A drafter that knows the text, and is wrong from a place on."""

    def __init__(self, wrong_from: int) -> None:
        self.at = 0
        self.asked = 0
        self.wrong_from = wrong_from

    def draft(self, most: int) -> Ints:
        self.asked += 1
        tokens = np.arange(self.at, self.at + most, dtype=np.int32)
        return np.where(tokens < self.wrong_from, tokens, -1).astype(np.int32)

    def accept(self, tokens: Sequence[int]) -> None:
        self.at += len(tokens)


def linear_costs(each: float, *, most: int = 32, split: bool = False) -> DecodeCosts:
    """A plain decode takes 1 s, each further row so much more."""
    costs = DecodeCosts(split=split)
    for rows in range(1, most + 1):
        costs.took(rows, 0, 1.0 + each * (rows - 1))
    return costs


def allowances(made: Speculation, tokens: int, *, busy_slots: int = 1, slots: int = 4) -> list[int]:
    """Generate 0, 1, 2 ... with drafts; how many were checked in each step."""
    counts, at = [], 0
    while at < tokens:
        drafts = made.draft(made.allowance(busy_slots=busy_slots, slots=slots)).tolist()
        right = 0
        while right < len(drafts) and drafts[right] == at + right:
            right += 1
        made.accept(range(at, at + right + 1))
        counts.append(len(drafts))
        at += right + 1
    return counts


def drafted_by_one_who_is_right(costs: DecodeCosts, each: float, *, steps: int) -> list[int]:
    """What is drafted step by step, if all guesses are right and each costs a further row."""
    made, counts, at = Speculation(Oracle(1_000_000), Pace(costs)), [], 0
    for _ in range(steps):
        count = len(made.draft(made.allowance(busy_slots=1, slots=4)))
        made.accept(range(at, at + count + 1))
        at += count + 1
        costs.took(1, count, 1.0 + each * count)
        counts.append(count)
    return counts


@pytest.mark.parametrize("bad_moments", [20, 200])
def test_drafting_that_seemed_too_dear_in_bad_moments_is_tried_again(bad_moments: int) -> None:
    costs = linear_costs(0.1)
    for _ in range(bad_moments):
        costs.took(1, MOST_DRAFTED, 100.0)
    counts = drafted_by_one_who_is_right(costs, 0.1, steps=2000)
    assert counts[50:60] == [0] * 10
    assert counts[-100:] == [MOST_DRAFTED] * 100


def test_drafting_that_is_too_dear_is_hardly_ever_tried() -> None:
    counts = drafted_by_one_who_is_right(linear_costs(1.0), 1.0, steps=2000)
    assert 0 < sum(counts) <= 2 * 2000 / ASK_EVERY


def test_drafts_grow_to_the_most_while_all_of_them_are_right() -> None:
    counts = allowances(Speculation(Oracle(1000), Pace(linear_costs(0.1))), 200)
    assert counts[0] < MOST_DRAFTED
    assert counts == sorted(counts)
    assert counts[-1] == MOST_DRAFTED


def test_drafting_ends_after_a_few_wrong_drafts_and_begins_again_when_guesses_are_right() -> None:
    oracle = Oracle(60)
    made = Speculation(oracle, Pace(linear_costs(0.3)))
    counts = allowances(made, 100)
    assert counts[-20:] == [0] * 20
    assert len([count for count in counts if count]) < 20
    oracle.wrong_from = 1000
    assert allowances(made, 0) == []
    counts = []
    for _ in range(12):  # guesses are compared with what comes, though none is checked
        counts.append(made.allowance(busy_slots=1, slots=4))
        made.accept([oracle.at])
    assert counts[0] == 0
    assert counts[-1] > 4


def test_guesses_in_vain_become_rare_until_one_is_right() -> None:
    oracle = Oracle(0)
    made = Speculation(oracle, Pace(linear_costs(0.3)))
    allowances(made, 100)
    assert 10 < oracle.asked < 30
    oracle.wrong_from = 1000
    while made.allowance(busy_slots=1, slots=4) == 0:
        made.accept([oracle.at])
    made.accept([oracle.at])
    oracle.asked, oracle.wrong_from = 0, oracle.at
    for _ in range(2):  # one wrong guess is no reason to wait
        made.allowance(busy_slots=1, slots=4)
        made.accept([oracle.at])
    assert oracle.asked == 2


def test_a_dear_drafter_is_asked_for_what_is_checked_and_now_and_then_to_see_how_it_does() -> None:
    oracle = Oracle(0)
    made = Speculation(oracle, Pace(linear_costs(0.3), probe_every=10), is_dear=True)
    counts = allowances(made, 100)
    assert counts[-20:].count(1) == 2
    assert counts[-20:].count(0) == 18
    oracle.wrong_from = 1000
    more = []
    for _ in range(60):
        drafts = made.draft(made.allowance(busy_slots=1, slots=4))
        made.accept([*drafts.tolist(), oracle.at + len(drafts)])
        more.append(len(drafts))
    assert max(more) > 8


@pytest.mark.parametrize("slots", [2, 4, 8])
def test_nothing_is_drafted_when_all_slots_are_busy(slots: int) -> None:
    made = Speculation(Oracle(1000), Pace(linear_costs(0.0)))
    assert set(allowances(made, 100, busy_slots=slots, slots=slots)) == {0}
    assert Pace(linear_costs(0.0)).allowance(busy_slots=slots, slots=slots) == 0
    assert max(allowances(Speculation(Oracle(1000), Pace(linear_costs(0.0))), 100)) > 8


def test_the_only_slot_may_draft() -> None:
    made = Speculation(Oracle(1000), Pace(linear_costs(0.1)))
    assert max(allowances(made, 100, busy_slots=1, slots=1)) == MOST_DRAFTED


@given(
    each=st.floats(0.0, 2.0),
    outcomes=st.lists(st.tuples(st.integers(0, 16), st.integers(0, 16)), max_size=20),
    busy_slots=st.integers(1, 8),
    most=st.integers(0, 20),
)
def test_never_more_is_allowed_than_asked_for(
    each: float, outcomes: list[tuple[int, int]], busy_slots: int, most: int
) -> None:
    pace = Pace(linear_costs(each))
    for one, other in outcomes:
        pace.verified(max(one, other), min(one, other))
        assert 0 <= pace.allowance(busy_slots=busy_slots, slots=9, most=most) <= most


def test_a_draft_is_shorter_where_rows_are_dearer() -> None:
    counts = [Pace(linear_costs(each)).allowance(busy_slots=1, slots=2) for each in (0, 0.2, 0.4)]
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) == 3
    assert Pace(linear_costs(1.0)).allowance(busy_slots=1, slots=2) == 0


def test_beside_other_slots_drafts_of_a_split_cache_must_pay_for_a_second_micro_batch() -> None:
    together, apart = linear_costs(0.05), linear_costs(0.05, split=True)
    assert together.of(1, 3) == apart.of(1, 3) == pytest.approx([1.0, 1.05, 1.1, 1.15])
    assert together.of(2, 3) == pytest.approx([1.05, 1.1, 1.15, 1.2])
    assert apart.of(2, 3) == pytest.approx([1.05, 2.05, 2.1, 2.15])
    for costs, drafts in ((together, True), (apart, False)):
        pace = Pace(costs)
        assert (pace.allowance(busy_slots=3, slots=4) > 0) is drafts


def test_two_micro_batches_at_once_teach_nothing_about_one() -> None:
    costs = linear_costs(0.1, most=8, split=True)
    before = costs.of(1, 16)
    costs.took(2, 3, 100.0)
    assert costs.of(1, 16) == before


@pytest.mark.parametrize(("split", "is_asked"), [(True, False), (False, True)])
def test_what_drafts_cost_is_asked_again_only_where_the_answer_teaches_something(
    split: bool, is_asked: bool
) -> None:
    pace = Pace(linear_costs(0.7, split=split))
    pace.verified(64, 64)
    drafted = {pace.allowance(busy_slots=2, slots=4) for _ in range(2 * ASK_EVERY)}
    assert drafted == ({0, ASKED_TOKENS} if is_asked else {0})


def test_where_nothing_is_known_drafts_are_free_so_that_they_get_tried() -> None:
    costs = DecodeCosts(split=False)
    assert costs.of(1, 2) == [1.0, 1.0, 1.0]
    costs.took(1, 0, 2.0)
    assert costs.of(1, 2) == [2.0, 2.0, 2.0]


def test_counts_never_tried_lie_on_a_line_with_those_that_were() -> None:
    costs = DecodeCosts(split=False)
    costs.took(1, 0, 2.0)
    costs.took(1, 4, 4.0)
    assert costs.of(1, 6) == pytest.approx([2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0])
    assert costs.of(3, 1) == pytest.approx([3.0, 3.5])


def test_a_first_further_row_may_cost_more_than_the_next_ones() -> None:
    costs = DecodeCosts(split=False)
    for _ in range(40):
        costs.took(1, 0, 1.0)
        for rows in (2, 4, 8):
            costs.took(1, rows - 1, 2.5 + 0.5 * rows)
        costs.took(1, 0, 99.0)  # the graph is built anew: it does not count
    plain, one, *_, seven = costs.of(1, 7)
    assert plain == pytest.approx(1.0)
    assert one == pytest.approx(3.5, rel=0.1)
    assert seven == pytest.approx(6.5, rel=0.1)


def test_costs_follow_what_steps_take_and_one_disturbance_moves_them_little() -> None:
    costs = DecodeCosts(split=False)
    for drafts in (0, 4):
        costs.took(1, drafts, 1.0)
        costs.took(1, drafts, 1000.0)
    assert max(costs.of(1, 4)) < 3.0
    for _ in range(100):
        costs.took(1, 4, 7.0)
        costs.took(1, 0, 0.0)
        costs.took(1, 0, 3.0)
    assert costs.of(1, 4) == pytest.approx([3.0, 4.0, 5.0, 6.0, 7.0], rel=0.02)


@given(steps=st.lists(st.tuples(st.integers(1, 8), st.integers(0, 16), st.floats(0, 1e6))))
def test_a_draft_never_seems_cheaper_than_none(steps: list[tuple[int, int, float]]) -> None:
    for split in (False, True):
        costs = DecodeCosts(split=split)
        for busy, drafts, seconds in steps:
            costs.took(busy, drafts, seconds)
            plain, *others = costs.of(busy, 4)
            assert plain >= 0
            assert all(np.isfinite(other) and other >= plain for other in others)


@pytest.mark.parametrize(("count", "accepted"), [(2, 3), (2, -1)])
def test_more_accepted_than_drafted_is_an_error(count: int, accepted: int) -> None:
    with pytest.raises(ValueError, match=f"{accepted} accepted of {count}"):
        Pace(DecodeCosts(split=False)).verified(count, accepted)


def test_a_new_call_begins_with_what_the_others_found() -> None:
    costs = DecodeCosts(split=False)
    for rows, seconds in ((1, 1.0), (5, 3.2), (9, 5.0), (17, 8.0)):
        for _ in range(10):
            costs.took(1, rows - 1, seconds)
    assert Pace(costs).allowance(busy_slots=1, slots=1) == 0
    for _ in range(200):
        Pace(costs).verified(1, 1)
    lucky = Pace(costs)
    for _ in range(3):
        lucky.verified(1, 1)
    assert lucky.allowance(busy_slots=1, slots=1) > 0
    for _ in range(400):
        Pace(costs).verified(1, 0)
    assert Pace(costs).allowance(busy_slots=1, slots=1) == 0
