"""Native filters, our own draw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from agent.engine.frames import Sampling
from agent.engine.llama.sampler_chain import Candidates
from agent.engine.sampling import (
    IMPOSSIBLE,
    Sampler,
    draw,
    log_softmax,
    logprobs_of,
    nucleus,
    problem_with,
    uniform,
)

SIZE = 200
ENDS = np.array([3, 4], dtype=np.int32)
Floats = NDArray[np.float32]


def row(seed: int = 0, size: int = SIZE) -> Floats:
    return np.random.default_rng(seed).standard_normal(size, dtype=np.float32) * np.float32(3)


@contextmanager
def sampler(sampling: Sampling, size: int = SIZE) -> Iterator[Sampler]:
    made = Sampler(sampling, Candidates(size), size, ENDS)
    try:
        yield made
    finally:
        made.close()


def drawn(sampling: Sampling, logits: Floats, count: int = 400) -> list[int]:
    with sampler(sampling, len(logits)) as made:
        return [made.choose(logits, position, may_end=True) for position in range(count)]


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


@given(st.integers(0, 10_000), st.floats(0.01, 0.999), st.floats(0.1, 8))
def test_our_nucleus_is_llama_cpps(seed: int, top_p: float, loudness: float) -> None:
    logits = row(seed) * np.float32(loudness)
    ours = set(nucleus(logits, top_p).tolist())
    probabilities = np.sort(np.exp(log_softmax(logits)))[::-1]
    reached = probabilities.cumsum()
    # float32 sums may tip over a border that float64 does not
    low = int(reached.searchsorted(top_p - 1e-5)) + 1
    high = int(reached.searchsorted(top_p + 1e-5)) + 1
    assert low <= len(ours) <= high
    assert ours == set(np.argsort(-logits, kind="stable")[: len(ours)].tolist())


def test_the_nucleus_cut_by_us_and_by_llama_cpp_draws_the_same_tokens() -> None:
    logits = row(3, 5000)
    ours = Sampling(top_p=0.9, seed=9)
    theirs = Sampling(top_p=0.9, seed=9, top_k=5000)
    assert drawn(ours, logits, 300) == drawn(theirs, logits, 300)


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


def test_logprobs_are_of_the_model_and_sum_to_one() -> None:
    logits = row()
    assert np.exp(log_softmax(logits)).sum() == pytest.approx(1)
    pieces = [bytes([token]) for token in range(SIZE)]
    entry = logprobs_of(logits, 7, 5, pieces)
    best = np.argsort(-logits)[:5].tolist()
    assert [top.token_id for top in entry.top] == best
    assert entry.logprob == pytest.approx(float(log_softmax(logits)[7]))
    assert entry.piece.encode("latin-1") == pieces[7]
    assert logprobs_of(logits, 7, 0, pieces).top == ()


def test_broken_logits_give_logprobs_that_json_can_carry() -> None:
    """NaN is `null` in JSON; the balancer dropped such a step, with its neighbours' tokens."""
    pieces = [bytes([token]) for token in range(SIZE)]
    broken = np.full(SIZE, np.nan, dtype=np.float32)
    impossible = row()
    impossible[9] = -np.inf
    for logits in (broken, impossible):
        entry = logprobs_of(logits, 9, 3, pieces)
        assert entry.logprob == IMPOSSIBLE
        assert all(np.isfinite(top.logprob) for top in entry.top)


@pytest.mark.parametrize(
    ("sampling", "named"),
    [
        (Sampling(temperature=-1), "temperature"),
        (Sampling(temperature=float("nan")), "temperature"),
        (Sampling(repeat_penalty=0), "repeat_penalty"),
        (Sampling(top_p=1.5), "top_p"),
        (Sampling(top_k=-1), "top_k"),
        (Sampling(presence_penalty=float("inf")), "presence_penalty"),
        (Sampling(logit_bias=((SIZE, 1.0),)), "vocabulary"),
        (Sampling(logit_bias=((1, float("nan")),)), "logit_bias"),
        (Sampling(top_logprobs=SIZE + 1), "top_logprobs"),
    ],
)
def test_what_llama_cpp_would_not_survive_is_named(sampling: Sampling, named: str) -> None:
    assert named in problem_with(sampling, SIZE)


def test_ordinary_sampling_has_no_problem() -> None:
    assert problem_with(Sampling(logit_bias=((1, -100.0),), top_logprobs=20), SIZE) == ""
