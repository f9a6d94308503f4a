"""DRY: what would prolong a repetition gets less likely, the longer the less."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agent.engine.frames import Sampling
from agent.engine.sampling.dry import Dry
from tests.support.samplers import pieces, row, sampler

SIZE = 20
NEWLINE = 10


def penalties(sampling: Sampling, accepted: list[int]) -> dict[int, float]:
    dry = Dry(sampling, pieces(SIZE))
    for token in accepted:
        dry.accept(token)
    logits = np.zeros(SIZE, dtype=np.float32)
    dry.apply(logits)
    return {int(token): round(-float(logits[token]), 3) for token in np.flatnonzero(logits)}


def test_a_longer_repetition_costs_exponentially_more() -> None:
    sampling = Sampling(dry_multiplier=1.0, dry_base=2.0, dry_allowed_length=2)
    assert penalties(sampling, [1, 5, 1]) == {}
    assert penalties(sampling, [1, 2, 5, 1, 2]) == {5: 1.0}
    assert penalties(sampling, [1, 2, 3, 5, 1, 2, 3]) == {5: 2.0}
    assert penalties(sampling, [1, 2, 3, 4, 5, 1, 2, 3, 4]) == {5: 4.0}


def test_the_longest_repetition_counts_for_a_token_that_would_prolong_several() -> None:
    sampling = Sampling(dry_multiplier=1.0, dry_base=2.0, dry_allowed_length=1)
    assert penalties(sampling, [2, 5, 9, 1, 2, 5, 8, 1, 2]) == {5: 2.0}


def test_no_repetition_reaches_over_a_sequence_breaker() -> None:
    sampling = Sampling(dry_multiplier=1.0, dry_base=2.0, dry_allowed_length=1)
    assert penalties(sampling, [1, 2, NEWLINE, 3, 7, 1, 2, NEWLINE, 3]) == {7: 1.0}
    without = Sampling(
        dry_multiplier=1.0, dry_base=2.0, dry_allowed_length=1, dry_sequence_breakers=()
    )
    assert penalties(without, [1, 2, NEWLINE, 3, 7, 1, 2, NEWLINE, 3]) == {7: 8.0}


def test_a_sequence_breaker_itself_costs_nothing() -> None:
    sampling = Sampling(dry_multiplier=1.0, dry_allowed_length=1)
    assert penalties(sampling, [1, 2, NEWLINE, 1, 2]) == {}


def test_a_breaker_is_found_across_tokens() -> None:
    sampling = Sampling(dry_multiplier=1.0, dry_allowed_length=1, dry_sequence_breakers=("1 2",))
    # "1 " and "2 " make "1 2 ": one token lies behind the breaker
    assert penalties(sampling, [1, 2, 7, 5, 1, 2, 7]) == {5: 1.0}


def test_what_lies_behind_the_window_is_forgotten() -> None:
    sampling = Sampling(dry_multiplier=1.0, dry_allowed_length=1, dry_penalty_last_n=3)
    assert penalties(sampling, [1, 5, 6, 7, 1]) == {}
    assert penalties(sampling, [6, 7, 1, 5, 1]) == {5: 1.0}


def test_the_prompt_counts() -> None:
    sampling = Sampling(temperature=0, dry_multiplier=50.0, dry_allowed_length=2)
    logits = row()
    best, second = np.argsort(-logits)[:2].tolist()
    prompt = np.array([20, 21, best, 20, 21], dtype=np.int32)
    with sampler(sampling, prompt=prompt) as made:
        assert made.choose(logits, 0, may_end=True) == second
    with sampler(sampling) as made:
        assert made.choose(logits, 0, may_end=True) == best


@given(st.lists(st.integers(0, 2), max_size=60), st.integers(1, 9), st.data())
def test_penalties_are_the_same_whenever_they_were_asked_for(
    tokens: list[int], window: int, data: st.DataObject
) -> None:
    sampling = Sampling(dry_multiplier=1.0, dry_allowed_length=0, dry_penalty_last_n=window)
    dry = Dry(sampling, pieces(SIZE))
    for token in tokens:
        dry.accept(token)
        if data.draw(st.booleans()):
            dry.apply(np.zeros(SIZE, dtype=np.float32))
    logits = np.zeros(SIZE, dtype=np.float32)
    dry.apply(logits)
    assert {int(t): round(-float(logits[t]), 3) for t in np.flatnonzero(logits)} == penalties(
        sampling, tokens
    )


def test_a_window_of_one_word_repeated_is_handled_in_one_go() -> None:
    sampling = Sampling(
        dry_multiplier=1.0, dry_base=1.0, dry_penalty_last_n=16_384, dry_sequence_breakers=()
    )
    assert penalties(sampling, [7] * 40_000) == {7: 1.0}
