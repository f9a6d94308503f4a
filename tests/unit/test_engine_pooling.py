"""From token vectors to an input's own, on plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.engine.embedding.pooling import Floats, Pool, finished
from protocol.embeddings import Pooling

WIDTH = 4


def rows(count: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).standard_normal((count, WIDTH), dtype=np.float32)


EXPECTED = {
    "none": lambda all_rows: all_rows,
    "mean": lambda all_rows: all_rows.mean(axis=0, keepdims=True),
    "cls": lambda all_rows: all_rows[:1],
    "last": lambda all_rows: all_rows[-1:],
    "rank": lambda all_rows: all_rows[-1:],
}


@pytest.mark.parametrize("pooling", EXPECTED)
@given(cuts=st.lists(st.integers(1, 19), max_size=4, unique=True))
def test_what_comes_out_does_not_depend_on_the_pieces(pooling: Pooling, cuts: list[int]) -> None:
    whole = rows(20)
    pool = Pool(pooling)
    for piece in np.split(whole, sorted(cuts)):
        pool.add(piece)
    np.testing.assert_allclose(pool.vectors(), EXPECTED[pooling](whole), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pooling", EXPECTED)
def test_rows_may_change_after_they_were_given(pooling: Pooling) -> None:
    """llama.cpp writes the next decode's rows into the same memory."""
    given_rows = rows(3)
    expected = EXPECTED[pooling](given_rows.copy())
    pool = Pool(pooling)
    pool.add(given_rows)
    given_rows[:] = 0
    np.testing.assert_allclose(pool.vectors(), expected, rtol=1e-5, atol=1e-6)


def test_vectors_are_cut_before_they_are_scaled_to_length_one() -> None:
    vectors = finished(rows(3), dimensions=2, normalize=True)
    assert vectors.shape == (3, 2)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    expected = rows(3)[:, :2]
    np.testing.assert_allclose(vectors[0] * np.linalg.norm(expected[0]), expected[0], rtol=1e-5)


def test_without_normalising_vectors_stay_as_they_are() -> None:
    assert (finished(rows(2), dimensions=None, normalize=False) == rows(2)).all()


def test_a_vector_of_zeros_has_no_direction_and_stays() -> None:
    zeros = np.zeros((1, WIDTH), dtype=np.float32)
    assert (finished(zeros, dimensions=None, normalize=True) == 0).all()


def test_huge_numbers_do_not_overflow() -> None:
    huge = np.full((1, WIDTH), 1e30, dtype=np.float32)
    np.testing.assert_allclose(finished(huge, dimensions=None, normalize=True), 0.5, rtol=1e-6)


def test_bytes_are_little_endian_float32() -> None:
    vectors = finished(np.ones((1, 1), dtype=np.float32), dimensions=None, normalize=False)
    assert vectors.tobytes() == bytes.fromhex("0000803f")
