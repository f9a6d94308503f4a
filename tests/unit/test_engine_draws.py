"""Numbers that belong to a place, and the draw that they decide."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.engine.sampling.draws import draw, index_at, uniform, weights_of
from tests.support.samplers import row


def test_numbers_are_spread_evenly() -> None:
    numbers = [uniform(7, position) for position in range(20_000)]
    counts, _ = np.histogram(numbers, bins=20, range=(0, 1))
    assert counts.min() > 850
    assert counts.max() < 1150
    assert min(numbers) >= 0
    assert max(numbers) < 1


def test_numbers_of_other_seeds_positions_and_streams_differ() -> None:
    numbers = {uniform(s, p, t) for s in range(10) for p in range(10) for t in range(2)}
    assert len(numbers) == 200
    assert uniform(1, 23) != uniform(12, 3)


def test_a_number_is_the_same_on_every_machine_for_ever() -> None:
    assert uniform(42, 7) == 0.11586143634009805


def test_draws_follow_the_probabilities() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], dtype=np.float32))
    chosen = [draw(logits, 1.0, uniform(1, position)) for position in range(20_000)]
    shares = np.bincount(chosen, minlength=4) / len(chosen)
    assert np.abs(shares - [0.5, 0.3, 0.15, 0.05]).max() < 0.015


@given(st.floats(0, 1, exclude_max=True), st.floats(1e-5, 2))
def test_the_impossible_is_never_drawn(number: float, temperature: float) -> None:
    logits = np.array([-np.inf, 1.0, -np.inf, 0.5, -np.inf], dtype=np.float32)
    assert draw(logits, temperature, number) in (1, 3)


def test_the_largest_number_below_one_draws_the_last_possible_token() -> None:
    logits = np.array([0.0, 0.0, -np.inf], dtype=np.float32)
    assert draw(logits, 1.0, np.nextafter(1.0, 0.0)) == 1


@given(st.integers(1, 9000), st.integers(0, 1000), st.floats(0, 1, exclude_max=True))
def test_a_draw_from_many_tokens_is_where_one_long_sum_points(
    size: int, seed: int, number: float
) -> None:
    weights = weights_of(row(seed, size), 0.7)
    weights[::3] = 0.0 if size > 1 else weights[::3]
    heights = weights.astype(np.float64).cumsum()
    index = index_at(weights, number)
    assert weights[index] > 0
    # float32 sums of blocks move borders by a rounding error
    slack = 1e-5 * heights[-1]
    assert heights[index] - weights[index] <= number * heights[-1] + slack
    assert number * heights[-1] <= heights[index] + slack


@pytest.mark.parametrize("size", [3, 2048, 2049, 5000, 131_072])
def test_the_first_and_the_last_number_draw_the_first_and_the_last_possible_token(
    size: int,
) -> None:
    weights = np.zeros(size, dtype=np.float32)
    weights[[1, size - 2]] = 1.0, 0.3
    assert index_at(weights, 0.0) == 1
    assert index_at(weights, float(np.nextafter(1.0, 0.0))) == size - 2


def test_low_temperatures_and_impossible_tokens_overflow_nothing() -> None:
    logits = np.array([-3e38, 0.0, -np.inf, 1e30], dtype=np.float32)
    assert draw(logits, 1e-5, 0.999) == 3


def test_the_room_for_weights_changes_no_draw() -> None:
    logits, room = row(1, 3000), np.full(5000, np.nan, dtype=np.float32)
    for position in range(50):
        number = uniform(3, position)
        assert draw(logits, 0.8, number, room) == draw(logits, 0.8, number)
