"""What the golden tests of documents hold answers with sees what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.shapes import MAYBE_TEXT, NUMBER, misfits

SHAPE = {"id": str, "kind": "list", "took": NUMBER, "data": [{"name": MAYBE_TEXT}]}
GOOD = {"id": "a", "kind": "list", "took": 1.5, "data": [{"name": None}, {"name": "b", "more": 1}]}


def test_a_value_of_the_shape_fits_and_may_have_more() -> None:
    assert misfits({**GOOD, "more": True}, SHAPE) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"id": 1}, "$.id is of another type: 1"),
        ({"kind": "dict"}, "$.kind is 'dict'"),
        ({"took": True}, "$.took is of another type: True"),
        ({"data": []}, "$.data is no list with entries: []"),
        ({"data": [{"name": "a"}, {}]}, "$.data[1].name is not there"),
        ({"data": [1]}, "$.data[0] is no object: 1"),
    ],
)
def test_what_differs_is_told_with_its_place(wrong: dict[str, Any], said: str) -> None:
    assert misfits({**GOOD, **wrong}, SHAPE) == [said]
