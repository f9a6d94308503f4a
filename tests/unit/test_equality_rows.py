"""What the comparisons with llama-server call equal."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.equality.rows import largest_difference, least_cosine, table
from tests.equality.texts import Said, row

SAID = Said([b"a", b"b"], [{b"a": -0.1, b"c": -2.5}, {b"b": -0.2}])


def test_answers_that_differ_by_rounding_are_equal() -> None:
    near = Said([b"a", b"b"], [{b"a": -0.10001, b"d": -2.5}, {b"b": -0.2}])
    found = row("text", "short", [SAID], [SAID], [near])
    assert found.is_good
    assert found.difference == pytest.approx(1e-5)
    assert "more than" not in table([found])


@pytest.mark.parametrize(
    "other",
    [
        Said([b"a", b"c"], SAID.likeliest),
        Said([b"a"], SAID.likeliest[:1]),
        Said(SAID.tokens, [{b"a": -0.1, b"c": -2.4}, {b"b": -0.2}]),
        Said(SAID.tokens, [{b"d": -0.1}, {b"b": -0.2}]),
    ],
    ids=["another token", "an earlier end", "another probability", "other rivals"],
)
def test_other_answers_are_not_from_them_or_when_sent_again(other: Said) -> None:
    for found in (row("t", "g", [SAID], [SAID], [other]), row("t", "g", [SAID], [other], [SAID])):
        assert not found.is_good
        assert "another token" in table([found]) or "more than" in table([found])


def test_vectors_of_other_shapes_are_not_equal() -> None:
    one, other = [np.ones((1, 4))], [np.ones((2, 4))]
    assert (largest_difference(one, one), least_cosine(one, one)) == (0.0, 1.0)
    assert (largest_difference(one, other), least_cosine(one, other)) == (math.inf, 0.0)
    assert largest_difference(one, [np.full((1, 4), 1.5)]) == 0.5
