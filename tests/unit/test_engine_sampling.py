"""Native filters, our own draw."""

from __future__ import annotations

import numpy as np
import pytest

from agent.engine.frames import Sampling
from tests.support.samplers import ENDS, SIZE, drawn, row, sampler


def test_a_draw_depends_on_seed_and_position_and_not_on_what_was_drawn_before() -> None:
    logits = row()
    sampling = Sampling(seed=5, top_k=50, top_p=0.95)
    whole = drawn(sampling, logits, 50)
    with sampler(sampling) as made:
        later = [made.choose(logits, position, may_end=True) for position in range(30, 50)]
    assert later == whole[30:]
    assert whole != drawn(Sampling(seed=6, top_k=50, top_p=0.95), logits, 50)


def test_temperature_zero_takes_the_best_token() -> None:
    logits = row()
    assert set(drawn(Sampling(temperature=0, seed=1), logits, 5)) == {int(logits.argmax())}


def test_temperature_sharpens() -> None:
    logits = row()
    best = int(logits.argmax())
    cold = drawn(Sampling(temperature=0.2), logits).count(best)
    assert cold > drawn(Sampling(temperature=1.0), logits).count(best)


def test_top_k_leaves_the_k_best() -> None:
    logits = row()
    best = set(np.argsort(logits)[-3:].tolist())
    assert set(drawn(Sampling(top_k=3, temperature=2), logits)) == best


def test_min_p_drops_what_is_far_below_the_best() -> None:
    logits = np.log(np.array([0.6, 0.3, 0.05, 0.05], dtype=np.float32))
    assert set(drawn(Sampling(min_p=0.2, temperature=2), logits)) == {0, 1}


def test_typical_p_drops_the_untypical() -> None:
    logits = row()
    few = set(drawn(Sampling(typical_p=0.3), logits))
    assert len(few) < len(set(drawn(Sampling(), logits)))


def test_top_p_zero_and_tiny_leave_the_best_alone() -> None:
    logits = row()
    for top_p in (0.0, 1e-6):
        assert set(drawn(Sampling(top_p=top_p), logits, 20)) == {int(logits.argmax())}


def test_logit_bias_forces_and_forbids() -> None:
    logits = row()
    best = int(logits.argmax())
    assert best not in drawn(Sampling(logit_bias=((best, -100.0),)), logits)
    for temperature in (0.0, 1.0):
        forced = Sampling(logit_bias=((42, 100.0),), temperature=temperature)
        assert set(drawn(forced, logits, 20)) == {42}


def test_bias_counts_before_our_nucleus_is_cut() -> None:
    logits = row()
    sampling = Sampling(top_p=0.5, logit_bias=((42, 100.0),))
    assert set(drawn(sampling, logits, 20)) == {42}


def test_penalties_turn_from_what_was_generated() -> None:
    logits = np.array([2.0, 1.9, 0.0, 0.0, 0.0], dtype=np.float32)
    with sampler(Sampling(temperature=0, presence_penalty=1.0), 5) as made:
        first = made.choose(logits, 0, may_end=True)
        made.accept(first)
        assert (first, made.choose(logits, 1, may_end=True)) == (0, 1)


def test_penalties_forget_what_lies_behind_their_window() -> None:
    logits = np.array([2.0, 1.9, 0.0, 0.0, 0.0], dtype=np.float32)
    sampling = Sampling(temperature=0, presence_penalty=1.0, penalty_last_n=2)
    with sampler(sampling, 5) as made:
        for token in (0, 2, 2):
            made.accept(token)
        assert made.choose(logits, 3, may_end=True) == 0


@pytest.mark.parametrize(
    ("ignore_eos", "may_end", "ends"),
    [(False, True, True), (True, True, False), (False, False, False)],
)
def test_end_tokens_can_be_ruled_out(ignore_eos: bool, may_end: bool, ends: bool) -> None:
    logits = row()
    logits[ENDS] = 50.0
    before = logits.copy()
    for temperature in (0.0, 1.0):
        with sampler(Sampling(ignore_eos=ignore_eos, temperature=temperature)) as made:
            assert (made.choose(logits, 0, may_end=may_end) in ENDS) == ends
    assert (logits == before).all()


def test_broken_logits_still_give_a_token() -> None:
    for temperature in (0.0, 1.0):
        with sampler(Sampling(temperature=temperature, top_p=0.9)) as made:
            half = row()
            half[: SIZE // 2] = np.nan
            assert SIZE // 2 <= made.choose(half, 0, may_end=True) < SIZE
            none = np.full(SIZE, np.nan, dtype=np.float32)
            assert 0 <= made.choose(none, 0, may_end=True) < SIZE
