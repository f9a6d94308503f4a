"""The seeds of a request's choices: the documented rule, and what it is for."""

from __future__ import annotations

import math
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.policy.choices import likeliest, seed_of_choice

SEEDS = st.integers(0, 2**63 - 1)


@given(SEEDS)
def test_the_first_choice_has_the_request_s_own_seed(seed: int) -> None:
    assert seed_of_choice(seed, 0) == seed


@given(SEEDS, st.integers(1, 127))
def test_every_other_has_a_seed_that_anybody_can_compute(seed: int, choice: int) -> None:
    digest = blake2b(f"{seed}:{choice}".encode(), digest_size=8).hexdigest()
    assert seed_of_choice(seed, choice) == int(digest, 16) // 2
    assert 0 <= seed_of_choice(seed, choice) < 2**63


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_choices_of_one_request_and_of_neighbouring_seeds_all_differ(seed: int) -> None:
    neighbours = [abs(seed + distance) % 2**63 for distance in range(-2, 3)]
    seeds = {seed_of_choice(one, choice) for one in neighbours for choice in range(128)}
    assert len(seeds) == len(set(neighbours)) * 128


def test_the_likeliest_are_those_of_the_highest_mean_and_they_come_first() -> None:
    assert likeliest([-3.0, -0.5, -2.0, -1.0], 2) == [1, 3]
    assert likeliest([-3.0, -0.5], 2) == [1, 0]


def test_of_equally_likely_ones_the_earlier_is_taken() -> None:
    assert likeliest([-1.0, -0.5, -0.5, -0.5], 2) == [1, 2]


def test_an_answer_without_tokens_is_the_last_to_be_taken() -> None:
    assert likeliest([-math.inf, -9.0, -math.inf], 2) == [1, 0]
