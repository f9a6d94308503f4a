"""What is drawn is distributed as the plain formulas say, for every sampler and with a grammar.

Chi-square with fixed seeds: the same draws, and so the same verdict, at every run.
"""

from __future__ import annotations

import numpy as np
import pytest
from msgspec import structs
from numpy.typing import NDArray

from agent.engine.frames import Sampling
from agent.engine.sampling.draws import uniform
from agent.engine.sampling.xtc import exclude_top_choices
from tests.support.naive_sampling import distribution
from tests.support.samplers import ENDS, AllowList, row, sampler

# many examples of what other tests cover line by line: counting lines would double its time
pytestmark = pytest.mark.uncounted

SIZE = 40
DRAWS = 8000
HISTORY = (7, 9, 9, 30, 7, 7)

SETTINGS = {
    "temperature": Sampling(temperature=1.3),
    "cold": Sampling(temperature=0.3),
    "top_k": Sampling(top_k=7, temperature=1.5),
    "top_p": Sampling(top_p=0.8),
    "min_p": Sampling(min_p=0.1, temperature=1.4),
    "typical_p": Sampling(typical_p=0.6),
    "all filters": Sampling(top_k=25, typical_p=0.95, top_p=0.95, min_p=0.02, temperature=0.9),
    "penalties": Sampling(
        presence_penalty=0.7, frequency_penalty=0.4, repeat_penalty=1.3, penalty_last_n=4
    ),
    "bias": Sampling(logit_bias=((1, 2.0), (2, -3.0), (1, 1.0)), top_p=0.9),
    "xtc": Sampling(xtc_probability=0.4, xtc_threshold=0.1),
    "xtc after filters": Sampling(xtc_probability=0.7, top_k=12, min_p=0.05, temperature=0.8),
    "xtc off by its threshold": Sampling(xtc_probability=1.0, xtc_threshold=0.9),
    "mirostat 1": Sampling(mirostat=1, mirostat_tau=1.5),
    "mirostat 1, hot": Sampling(mirostat=1, mirostat_tau=1.0, temperature=1.7),
    "mirostat 2": Sampling(mirostat=2, mirostat_tau=1.7),
    "mirostat 2, strict": Sampling(mirostat=2, mirostat_tau=0.2, temperature=0.7),
}


def counts_of(sampling: Sampling, logits: NDArray[np.float32], allowed: AllowList | None) -> object:
    with sampler(sampling, SIZE, allowed) as made:
        for token in HISTORY:
            made.accept(token)
        chosen = [made.choose(logits, position, may_end=True) for position in range(DRAWS)]
    return np.bincount(chosen, minlength=SIZE)


def assert_distributed(counts: object, expected: NDArray[np.float64]) -> None:
    observed = np.asarray(counts, dtype=np.float64)
    assert observed[expected == 0].sum() == 0, "something impossible was drawn"
    expected = expected * DRAWS
    # rare tokens together, as the test wants at least a handful of each
    rare = expected < 5
    groups = [(observed[rare].sum(), expected[rare].sum())] if expected[rare].sum() >= 5 else []
    groups += list(zip(observed[~rare], expected[~rare], strict=True))
    chi_square = sum((seen - wanted) ** 2 / wanted for seen, wanted in groups)
    freedom = len(groups) - 1
    # five standard deviations of the chi-square distribution
    assert chi_square <= freedom + 5 * (2 * freedom) ** 0.5 + 5, (chi_square, freedom)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("seed", [1, 2])
def test_draws_follow_the_formulas(name: str, seed: int) -> None:
    logits = row(seed, SIZE, 1.5)
    sampling = structs.replace(SETTINGS[name], seed=seed)
    counts = counts_of(sampling, logits, None)
    assert_distributed(counts, distribution(logits, sampling, HISTORY))


@pytest.mark.parametrize("name", ["temperature", "penalties", "bias", "xtc"])
def test_draws_under_a_grammar_follow_the_distribution_among_what_it_allows(name: str) -> None:
    """Refused draws are made anew with numbers of their own: nothing is drawn too often."""
    logits, allowed = row(3, SIZE, 1.5), (0, 1, 5, 7, 11, 30)
    sampling = structs.replace(SETTINGS[name], seed=3, top_p=1.0, xtc_threshold=0.9)
    masked = np.where(np.isin(np.arange(SIZE), allowed), logits, np.float32(-np.inf))
    counts = counts_of(sampling, logits, AllowList(allowed, SIZE))
    assert_distributed(counts, distribution(masked, sampling, HISTORY))


@pytest.mark.parametrize(
    "name", ["top_k", "top_p", "all filters", "typical_p", "mirostat 1", "mirostat 2"]
)
def test_filters_under_a_grammar_cut_again_what_it_allows(name: str) -> None:
    """One draw from all, and where it is refused a second from the filters' cut of the rest."""
    logits, allowed = row(4, SIZE, 1.5), (0, 1, 5, 7, 11, 30)
    sampling = structs.replace(SETTINGS[name], seed=4)
    is_allowed = np.isin(np.arange(SIZE), allowed)
    masked = np.where(is_allowed, logits, np.float32(-np.inf))
    first = distribution(logits, sampling, HISTORY)
    second = distribution(masked, sampling, HISTORY)
    expected = first * is_allowed + first[~is_allowed].sum() * second
    assert_distributed(counts_of(sampling, logits, AllowList(allowed, SIZE)), expected)


def test_the_least_probable_of_the_top_choices_stays_and_of_equals_the_greatest_id() -> None:
    logits = np.log(np.array([0.3, 0.2, 0.3, 0.2], dtype=np.float32))
    exclude_top_choices(logits, 0.15)
    assert np.isfinite(logits).tolist() == [False, False, False, True]


def test_one_top_choice_alone_is_never_excluded() -> None:
    logits = np.log(np.array([0.9, 0.05, 0.05], dtype=np.float32))
    exclude_top_choices(logits, 0.1)
    assert np.isfinite(logits).all()


def test_whether_xtc_acts_has_a_number_of_its_own() -> None:
    assert len({uniform(1, 5, stream) for stream in range(3)}) == 3


def test_a_greedy_grammar_takes_the_best_of_what_it_allows() -> None:
    logits = row(5)
    allowed = np.argsort(logits)[:20].tolist()
    for sampling in (Sampling(temperature=0), Sampling(temperature=0, presence_penalty=0.1)):
        grammar = AllowList(allowed)
        with sampler(sampling, constraint=grammar) as made:
            assert made.choose(logits, 0, may_end=True) == allowed[-1]
        assert grammar.masks_made == 1
        assert grammar.is_closed


def test_a_grammar_is_asked_for_its_mask_only_when_it_refuses() -> None:
    logits = row(6)
    grammar = AllowList([int(logits.argmax())])
    with sampler(Sampling(temperature=0), constraint=grammar) as made:
        made.accept(made.choose(logits, 0, may_end=True))
    assert grammar.accepted == [int(logits.argmax())]
    assert grammar.masks_made == 0


def test_a_lazy_grammar_changes_nothing_before_it_begins() -> None:
    logits = row(6)
    for seed in range(20):
        sampling = Sampling(seed=seed)
        grammar = AllowList([], is_lazy=True)
        with sampler(sampling) as free, sampler(sampling, constraint=grammar) as lazy:
            expected = free.choose(logits, 0, may_end=True)
            assert lazy.choose(logits, 0, may_end=True) == expected


def test_a_grammar_that_wants_the_end_gets_it_before_min_tokens() -> None:
    for temperature in (0.0, 1.0):
        sampling = Sampling(temperature=temperature, ignore_eos=True)
        with sampler(sampling, constraint=AllowList(ENDS.tolist())) as made:
            assert made.choose(row(7), 0, may_end=False) in ENDS


def test_a_grammar_that_allows_what_the_model_does_not_is_obeyed() -> None:
    logits = row(8)
    logits[50:] = -np.inf
    with sampler(Sampling(), constraint=AllowList([60, 61])) as made:
        assert made.choose(logits, 0, may_end=True) == 60
    with sampler(Sampling(), constraint=AllowList([])) as made:
        assert made.choose(logits, 0, may_end=True) in ENDS
