"""Series of numbers, marks of counters, percentiles of histograms, tallies."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.observability.series import Marks, SeriesStore, quantile, rate, share
from balancer.observability.tallies import OTHER, Tallies

BOUNDS = (1.0, 2.0, 4.0, inf)


def test_a_series_begins_with_its_first_number_and_keeps_the_latest() -> None:
    store = SeriesStore(("a", "b"), length=3)
    assert store.read().paths == {"a": [], "b": []}
    for second, value in enumerate((1, 2, None, 4)):
        store.add({"a": value, "unknown": 9}, at=100.0 + second)
    view = store.read()
    assert view.paths == {"a": [2.0, None, 4.0], "b": [None, None, None]}
    assert (view.end, view.interval_s) == (103.0, 1)
    assert store.read(("a", "nobody's"), last=1).paths == {"a": [4.0]}
    assert (store.paths, store.length) == (("a", "b"), 3)


def test_seconds_that_were_left_out_stay_unknown() -> None:
    store = SeriesStore(("a",), length=5)
    store.add({"a": 1}, at=10.0)
    store.add({"a": 2}, at=13.02)
    assert store.read().paths == {"a": [1.0, None, None, 2.0]}
    store.add({"a": 3}, at=99_999.0)
    assert store.read().paths == {"a": [None, None, None, None, 3.0]}


def test_a_clock_that_was_set_back_takes_nothing_away() -> None:
    store = SeriesStore(("a",), length=3)
    store.add({"a": 1}, at=10.0)
    store.add({"a": 2}, at=5.0)
    assert store.read().paths == {"a": [1.0, 2.0]}
    assert store.read().end == 5.0


def test_a_mark_is_the_oldest_of_its_time() -> None:
    marks = Marks("start", at_s=0.0, length=3)
    assert marks.before(5.0, at_s=99.0) == "start"
    for second in (1, 2, 3):
        marks.add(f"at {second}", at_s=float(second))
    assert marks.before(1.0, at_s=3.5) == "at 3"
    assert marks.before(2.0, at_s=3.5) == "at 2"
    assert marks.before(60.0, at_s=3.5) == "at 1"


@pytest.mark.parametrize("interval_s", [1.0, 1.001, 1.3])
def test_a_rate_is_made_of_the_time_that_really_passed(interval_s: float) -> None:
    """A second is never quite one: five of them are more than the window."""
    marks = Marks(0.0, at_s=0.0)
    for number in range(1, 30):
        marks.add(number * interval_s, at_s=number * interval_s)
    for age_s in (0.0, 0.4, 0.9):
        seconds, counted = marks.about(5.0, at_s=29 * interval_s + age_s)
        assert seconds == pytest.approx(29 * interval_s + age_s - counted)
        assert 4.0 < seconds < 6.0


@pytest.mark.parametrize(
    ("q", "counts", "expected"),
    [
        (0.5, (0, 0, 0, 0), None),
        (0.5, (10, 0, 0, 0), 0.5),
        (0.5, (0, 10, 0, 0), 1.5),
        (0.95, (0, 0, 10, 0), 3.9),
        (0.5, (0, 0, 0, 10), 4.0),
        (0.0, (0, 10, 0, 0), 1.0),
        (1.0, (5, 0, 5, 0), 4.0),
    ],
)
def test_percentiles_lie_evenly_within_their_buckets(
    q: float, counts: tuple[float, ...], expected: float | None
) -> None:
    assert quantile(q, BOUNDS, counts) == (None if expected is None else pytest.approx(expected))


@given(q=st.floats(0, 1), counts=st.tuples(*[st.integers(0, 9)] * 4))
def test_a_percentile_lies_within_the_bounds(q: float, counts: tuple[int, ...]) -> None:
    found = quantile(q, BOUNDS, counts)
    assert (found is None) == (sum(counts) == 0)
    assert found is None or 0.0 <= found <= 4.0


def test_a_percentile_past_all_that_was_counted_is_the_highest_bound() -> None:
    assert quantile(1.5, BOUNDS, (1, 0, 0, 0)) == 4.0


def test_a_share_of_nothing_is_unknown_and_rates_never_fall_below_zero() -> None:
    assert share(0, 0) is None
    assert share(1, 3) == 0.3333
    assert rate(10, 20, seconds=5.0) == 2.0
    assert rate(20, 10, seconds=5.0) == 0.0


def test_of_too_many_names_those_not_heard_of_for_longest_are_counted_together() -> None:
    tallies = Tallies(limit=3)
    for name in ("a", "b", "a", "c", "d", "e"):
        tallies.of(name).succeeded(response_s=0.5, tokens=3)
    assert list(tallies) == ["c", "d", OTHER, "e"]
    others = tallies.get(OTHER)
    assert (others.requests, others.successful, others.tokens, others.response_s) == (3, 3, 9, 1.5)
    tallies.of("e").broke()
    tallies.of("e").left()
    last = tallies.get("e")
    assert (last.requests, last.successful, last.failed) == (3, 1, 1)
    assert tallies.get("nobody").requests == 0


def test_an_agent_that_is_alive_keeps_its_own_tally_however_many_names_came_before() -> None:
    tallies = Tallies()
    for number in range(10_000):
        tallies.of(f"pod-{number}").generated += 2
        tallies.of("alive").generated += 1
    assert tallies.get("alive").generated == 10_000
    assert len(list(tallies)) <= 257
    assert sum(tallies.get(name).generated for name in tallies) == 30_000
