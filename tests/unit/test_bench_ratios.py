"""How the benchmarks make one ratio and its interval from many rounds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks.peers.machine import share_out
from tests.benchmarks.peers.plot import svg
from tests.benchmarks.peers.ratios import estimate, over_cells, paired_ratios

positive = st.floats(min_value=0.01, max_value=100.0)


def test_the_mean_is_geometric() -> None:
    found = estimate([[2.0, 8.0], [4.0]])
    assert found is not None
    assert found.mean == pytest.approx(4.0)
    assert found.median == pytest.approx(4.0)
    assert (found.starts, found.rounds) == (2, 3)


def test_the_interval_is_student_s_over_the_starts() -> None:
    # logarithms 0, 0.1, 0.2, 0.3: mean 0.15, standard error 0.0645, t(3) = 3.182
    found = estimate([[math.exp(n / 10)] for n in range(4)])
    assert found is not None
    assert found.low == pytest.approx(math.exp(0.15 - 3.182 * 0.0645497), rel=1e-5)
    assert found.high == pytest.approx(math.exp(0.15 + 3.182 * 0.0645497), rel=1e-5)


def test_one_start_has_no_interval_and_none_no_mean() -> None:
    found = estimate([[1.5, 1.5]])
    assert found is not None
    assert (found.low, found.high) == (None, None)
    assert estimate([]) is None
    assert estimate([[0.0]]) is None


def test_many_rounds_in_a_start_do_not_narrow_the_interval() -> None:
    few, many = estimate([[1.0], [1.2]]), estimate([[1.0] * 50, [1.2] * 50])
    assert few is not None
    assert many is not None
    assert (many.low, many.high) == pytest.approx((few.low, few.high))


def test_only_rounds_that_both_sides_played_make_a_ratio() -> None:
    ours = {(0, 0): 2.0, (0, 1): 3.0, (1, 0): 4.0}
    theirs = {(0, 0): 1.0, (1, 0): 2.0, (1, 1): 9.0}
    assert paired_ratios(ours, theirs) == {0: [2.0], 1: [2.0]}


@given(st.lists(st.lists(positive, min_size=1, max_size=4), min_size=2, max_size=6))
def test_turning_a_ratio_over_turns_its_interval_over(by_start: list[list[float]]) -> None:
    found = estimate(by_start)
    turned = estimate([[1 / value for value in values] for values in by_start])
    assert found is not None
    assert turned is not None
    assert found.low is not None
    assert turned.high is not None
    assert found.low * turned.high == pytest.approx(1.0)


def test_cells_weigh_the_same_whatever_their_number_of_pairs() -> None:
    found = over_cells([{0: [1.0] * 9, 1: [1.0]}, {0: [4.0], 1: [4.0] * 3}])
    assert found is not None
    assert found.mean == pytest.approx(2.0)
    assert over_cells([{0: [1.0]}, {1: [1.0]}]) is None


def test_the_engine_has_its_cores_alone_where_there_are_enough() -> None:
    one = share_out({0, 1}, 1)
    assert (sorted(one.engine), sorted(one.rest), one.apart) == ([0], [1], True)
    two = share_out({0, 1}, 2)
    assert (sorted(two.engine), sorted(two.rest), two.apart) == ([0, 1], [0, 1], False)
    assert sorted(share_out({2, 5, 7}, 2).rest) == [7]


def test_a_plot_has_a_row_for_each_ratio_and_stands_without_any() -> None:
    estimated = {"mean": 1.2, "median": 1.2, "low": 1.1, "high": 1.3, "starts": 4, "rounds": 12}
    row = {"metric": "throughput", "side": "a<b", "first_over_this": estimated}
    document = {
        "workload": "decode",
        "about": "words",
        "metrics": [{"name": "throughput", "unit": "tok/s", "better": "higher"}],
        "cells": [{"label": "4 slots", "figures": [row, {**row, "first_over_this": None}]}],
        "over_all_cells": [],
    }
    assert svg(document).count("<circle") == 1
    assert "a&lt;b" in svg(document)
    assert "<circle" not in svg({**document, "cells": []})
