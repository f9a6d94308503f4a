"""A generation cut anywhere and gone on with elsewhere is the uninterrupted one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from numpy.typing import NDArray

from agent.engine.frames import Sampling
from agent.engine.llama.sampler_chain import Candidates
from agent.engine.sampling.mirostat import Mirostat
from agent.engine.sampling.sampler import Sampler
from tests.support.naive_sampling import distribution
from tests.support.samplers import AllowList, row, sampler

SIZE = 60
LENGTH = 12
PROMPT = np.array([11, 12, 13, 10, 11, 12, 13, 14], dtype=np.int32)

SAMPLINGS = st.builds(
    Sampling,
    seed=st.integers(0, 2**63 - 1),
    temperature=st.sampled_from([0.0, 0.5, 1.0, 1.8]),
    top_k=st.sampled_from([0, 1, 20]),
    top_p=st.sampled_from([1.0, 0.9, 0.5]),
    min_p=st.sampled_from([0.0, 0.1]),
    typical_p=st.sampled_from([1.0, 0.8]),
    repeat_penalty=st.sampled_from([1.0, 1.3]),
    presence_penalty=st.sampled_from([0.0, 0.5]),
    frequency_penalty=st.sampled_from([0.0, 0.3]),
    penalty_last_n=st.sampled_from([0, 3, 64]),
    dry_multiplier=st.sampled_from([0.0, 0.8]),
    dry_allowed_length=st.integers(0, 2),
    dry_penalty_last_n=st.sampled_from([2, 5, 64]),
    xtc_probability=st.sampled_from([0.0, 0.5]),
    xtc_threshold=st.sampled_from([0.05, 0.3]),
    mirostat=st.integers(0, 2),
    mirostat_tau=st.sampled_from([1.0, 3.0]),
    mirostat_eta=st.sampled_from([0.1, 0.7]),
    logit_bias=st.sampled_from([(), ((5, 1.5), (6, -2.0))]),
    ignore_eos=st.booleans(),
)


def logits_after(tokens: list[int]) -> NDArray[np.float32]:
    """A model whose logits are a function of the last two tokens."""
    return row(sum(token * 61**place for place, token in enumerate(tokens[-2:])), SIZE, 1.5)


def go_on(made: Sampler, tokens: list[int], states: list[tuple[float, ...]]) -> None:
    while len(tokens) < LENGTH:
        token = made.choose(logits_after(tokens), len(tokens), may_end=len(tokens) > 2)
        made.accept(token)
        tokens.append(token)
        states.append(made.state())


@given(SAMPLINGS, st.sampled_from([None, range(0, SIZE, 3)]))
def test_going_on_at_any_split_equals_the_uninterrupted_run(
    sampling: Sampling, allowed: range | None
) -> None:
    def grammar() -> AllowList | None:
        return AllowList(allowed, SIZE) if allowed else None

    whole: list[int] = []
    states: list[tuple[float, ...]] = []
    with sampler(sampling, SIZE, grammar(), PROMPT) as made:
        go_on(made, whole, states)
    for split in range(1, LENGTH):
        resumed, later = whole[:split], states[:split]
        with sampler(sampling, SIZE, grammar(), PROMPT) as made:
            for token in resumed:
                made.accept(token)
            made.restore(states[split - 1])
            go_on(made, resumed, later)
        assert resumed == whole
        assert later == states


@given(SAMPLINGS)
def test_choosing_leaves_no_trace_but_what_is_accepted(sampling: Sampling) -> None:
    """A choice may be thrown away, as speculation does, and made again."""
    with sampler(sampling, SIZE, None, PROMPT) as made:
        for token in (7, 8, 7):
            made.accept(token)
        before = made.state()
        first = made.choose(logits_after([7]), 3, may_end=True)
        made.choose(logits_after([9]), 4, may_end=False)
        assert made.state() == before
        assert made.choose(logits_after([7]), 3, may_end=True) == first


@given(SAMPLINGS, st.integers(0, 1000))
def test_a_choice_changes_no_logits_and_knows_nothing_of_other_calls(
    sampling: Sampling, position: int
) -> None:
    logits = logits_after([position])
    before = logits.copy()
    shared = Candidates(SIZE)
    other = structs.replace(sampling, temperature=1.0, top_p=0.7, xtc_probability=1.0)
    with (
        sampler(sampling, SIZE, None, PROMPT, shared) as made,
        sampler(other, SIZE, candidates=shared) as rival,
    ):
        alone = made.choose(logits, position, may_end=False)
        rival.choose(row(99, SIZE), 3, may_end=False)
        assert made.choose(logits, position, may_end=False) == alone
    assert (logits == before).all()


def test_only_mirostat_has_a_state_to_travel() -> None:
    for sampling, length in (
        (Sampling(), 0),
        (Sampling(mirostat=2, temperature=0), 0),
        (Sampling(mirostat=1), 1),
        (Sampling(mirostat=2), 1),
    ):
        with sampler(sampling) as made:
            assert len(made.state()) == length


@pytest.mark.parametrize("state", [(), (1.0, 2.0), (float("nan"),), (float("inf"),)])
def test_a_state_that_cannot_be_is_refused(state: tuple[float, ...]) -> None:
    with sampler(Sampling(mirostat=2)) as made, pytest.raises(ValueError, match="1 finite"):
        made.restore(state)
    with sampler(Sampling()) as made, pytest.raises(ValueError, match="0 finite"):
        made.restore((1.0,))


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_moves_mu_against_the_surprise_of_what_was_drawn(version: int) -> None:
    for seed in range(30):
        sampling = Sampling(seed=seed, mirostat=version, mirostat_tau=1.5, mirostat_eta=0.3)
        logits = row(seed, SIZE, 1.5)
        with sampler(sampling, SIZE) as made:
            token = made.choose(logits, 0, may_end=True)
            made.accept(token)
            surprise = -np.log2(distribution(logits, sampling)[token])
            assert made.state()[0] == pytest.approx(3.0 - 0.3 * (surprise - 1.5), abs=1e-4)


def test_mirostat_brings_the_surprise_to_its_target() -> None:
    work = np.empty((3, 5000), dtype=np.float32)
    mirostat, surprises = Mirostat(2, tau=4.0, eta=0.2), []
    numbers = np.random.default_rng(1)
    for position in range(600):
        logits = row(position, 5000, 2.0)
        probabilities = np.exp(logits) / np.exp(logits).sum()
        kept = probabilities[-np.log2(probabilities) <= mirostat.mu].sum()
        token = mirostat.draw(logits, 1.0, float(numbers.random()), work)
        mirostat.accept(token)
        surprises.append(-np.log2(probabilities[token] / kept))
    assert np.mean(surprises[100:]) == pytest.approx(4.0, abs=0.15)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("mu", [-1e6, -1.0, 0.0, 3.0, 1e6])
def test_mirostat_draws_something_possible_whatever_its_state(version: int, mu: float) -> None:
    work = np.empty((3, 300), dtype=np.float32)
    flat = np.zeros(300, dtype=np.float32)
    single = np.full(300, -np.inf, dtype=np.float32)
    single[17] = 0.0
    for logits in (flat, single, row(1, 300), row(1, 300, 50.0)):
        mirostat = Mirostat(version, tau=3.0, eta=0.1)
        mirostat.mu = mu
        token = mirostat.draw(logits, 0.9, 0.999999, work)
        assert np.isfinite(logits[token])
        mirostat.accept(token)
        assert np.isfinite(mirostat.mu)


def test_a_token_forced_on_mirostat_leaves_its_state_alone() -> None:
    with sampler(Sampling(mirostat=2)) as made:
        before = made.state()
        chosen = made.choose(row(), 0, may_end=True)
        made.accept((chosen + 1) % 200)
        assert made.state() == before
        made.accept(chosen)
        assert made.state() == before
