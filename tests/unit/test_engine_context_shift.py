"""What a call lets go of when its share of the context is full."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.engine.context_shift import dropped, left_of


@pytest.mark.parametrize(
    ("prompt", "cached", "start", "count"),
    [
        (100, 1000, 100, 450),
        (900, 1000, 500, 250),
        (1, 2, 1, 1),
        (1, 3, 1, 1),
    ],
    ids=["all of the prompt stays", "but no more than half of all", "two tokens", "three"],
)
def test_the_prompt_stays_and_the_older_half_of_the_rest_goes(
    prompt: int, cached: int, start: int, count: int
) -> None:
    assert dropped(prompt_tokens=prompt, cached=cached) == (start, count)


def test_what_fits_is_left_as_it_is() -> None:
    tokens = np.arange(10, dtype=np.int32)
    assert left_of(tokens, prompt_tokens=4, context=10).tolist() == tokens.tolist()


@given(st.integers(2, 40), st.integers(1, 40), st.integers(0, 200))
def test_counting_gives_what_token_by_token_gives(context: int, prompt: int, more: int) -> None:
    prompt = min(prompt, context - 1)
    tokens = np.arange(prompt + more, dtype=np.int32)
    kept: list[int] = []
    for token in tokens.tolist():
        if len(kept) == context:
            start, count = dropped(prompt_tokens=prompt, cached=context)
            del kept[start : start + count]
        kept.append(token)
    left = left_of(tokens, prompt_tokens=prompt, context=context)
    assert left.tolist() == kept
    assert len(left) <= context
