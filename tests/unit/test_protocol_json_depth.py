"""The bound on nesting: exact on valid JSON, safe on anything."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.json_depth import is_too_deep


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max((_depth(item) for item in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((_depth(item) for item in value), default=0)
    return 0


_values = st.recursive(
    st.text(alphabet='ab[]{}"\\', max_size=5) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a[{"', max_size=2), inner),
    max_leaves=20,
)


@given(_values, st.integers(0, 6))
def test_it_agrees_with_a_walk_over_the_decoded_value(value: Any, limit: int) -> None:
    assert is_too_deep(json.dumps(value).encode(), limit) == (_depth(value) > limit)


@given(st.text(alphabet='[]{}"\\a', max_size=60), st.integers(0, 5))
def test_text_that_is_no_json_is_judged_without_an_exception(text: str, limit: int) -> None:
    assert is_too_deep(text.encode(), limit) in {True, False}


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"a":' * 65, b"[]" * 50_000 + b"[" * 65])
def test_hostile_nesting_is_too_deep(data: bytes) -> None:
    assert is_too_deep(data, 64)


@pytest.mark.parametrize(
    "data",
    [b"[]" * 500_000, b"]" * 100_000, b"[]" * 99 + b"[" * 64, b'"' + b"[" * 99, b'"[]",' * 99],
)
def test_many_brackets_side_by_side_or_in_strings_are_not_deep(data: bytes) -> None:
    assert not is_too_deep(data, 64)
