"""The filters over whole vocabularies give the sets that llama.cpp's give."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_cpp import llama_cpp as api
from numpy.typing import NDArray

from agent.engine.frames import Sampling
from agent.engine.llama.sampler_chain import Candidates, SamplerChain
from agent.engine.sampling.cuts import above_min_p, best_k, nucleus, typical
from tests.support.samplers import drawn, row

Floats = NDArray[np.float32]
SIZES = st.sampled_from([5, 200, 9000])
LOUDNESS = st.floats(0.05, 8)


def room(size: int) -> Floats:
    return np.full((3, size), np.nan, dtype=np.float32)


def shares(logits: Floats) -> NDArray[np.float64]:
    weights = np.exp(logits.astype(np.float64) - logits.max())
    result: NDArray[np.float64] = weights / weights.sum()
    return result


def fewest_in(order: NDArray[np.intp], probabilities: NDArray[np.float64], p: float) -> range:
    """How many in this order hold p; float32 sums may tip over a border that float64 does not."""
    reached = probabilities[order].cumsum()
    low, high = (int(reached.searchsorted(p + slack)) + 1 for slack in (-1e-5, 1e-5))
    return range(low, high + 1)


@given(st.integers(0, 10_000), SIZES, st.floats(0.01, 0.999), LOUDNESS)
def test_a_nucleus_is_the_fewest_likeliest_that_hold_top_p(
    seed: int, size: int, top_p: float, loudness: float
) -> None:
    logits = row(seed, size, loudness)
    ours = nucleus(logits, top_p, room(size))
    order = np.argsort(-logits, kind="stable")
    assert len(ours) in fewest_in(order, shares(logits), top_p)
    assert ours.tolist() == sorted(order[: len(ours)].tolist())


@given(st.integers(0, 10_000), SIZES, st.floats(0.01, 0.999), LOUDNESS)
def test_the_typical_are_the_fewest_nearest_the_entropy(
    seed: int, size: int, typical_p: float, loudness: float
) -> None:
    logits = row(seed, size, loudness)
    ours = typical(logits, typical_p, room(size))
    probabilities = shares(logits)
    surprises = -np.log(probabilities)
    distances = np.abs(surprises - (probabilities * surprises).sum())
    order = np.argsort(distances, kind="stable")
    assert len(ours) in fewest_in(order, probabilities, typical_p)
    # neighbours in the order may swap by a rounding error
    assert distances[ours].max() <= distances[order[len(ours) - 1]] + 1e-4


@given(st.integers(0, 10_000), SIZES, st.integers(1, 300))
def test_the_k_best_are_kept(seed: int, size: int, k: int) -> None:
    logits = row(seed, size)
    ours = best_k(logits, k, room(size))
    assert ours.tolist() == sorted(np.argsort(-logits, kind="stable")[:k].tolist())


@given(st.integers(0, 10_000), SIZES, st.floats(0.001, 1))
def test_min_p_keeps_what_is_near_the_best(seed: int, size: int, min_p: float) -> None:
    logits = row(seed, size)
    kept = above_min_p(logits, min_p)
    relative = shares(logits) / shares(logits).max()
    others = np.delete(relative, kept)
    assert relative[kept].min() >= min_p * (1 - 1e-5)
    assert not len(others) or others.max() <= min_p * (1 + 1e-5)


@pytest.mark.parametrize(
    "cut",
    [
        lambda logits, work: best_k(logits, 3, work),
        lambda logits, work: nucleus(logits, 3 / len(logits), work),
        lambda logits, work: typical(logits, 3 / len(logits), work),
    ],
)
@pytest.mark.parametrize("size", [8, 20_000])
def test_of_equals_at_the_border_the_smaller_ids_stay(
    cut: Callable[[Floats, Floats], NDArray[np.intp]], size: int
) -> None:
    logits = np.zeros(size, dtype=np.float32)
    assert cut(logits, room(size)).tolist() == [0, 1, 2]


def test_what_is_impossible_is_never_kept() -> None:
    logits = np.full(100, -np.inf, dtype=np.float32)
    logits[[7, 9]] = 0.0, 1.0
    for kept in (
        best_k(logits, 50, room(100)),
        best_k(logits, 500, room(100)),
        nucleus(logits, 0.999, room(100)),
        typical(logits, 0.999, room(100)),
        above_min_p(logits, 0.01),
    ):
        assert kept.tolist() == [7, 9]


@pytest.mark.parametrize("loudness", [0.05, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("p", [0.02, 0.5, 0.9, 0.99])
def test_a_sampled_border_in_a_large_vocabulary_is_exact(p: float, loudness: float) -> None:
    logits = row(5, 60_000, loudness)
    # loud neighbours make the sample lie: every 14th token is looked at
    logits[1::14] += np.float32(2.0)
    ours = nucleus(logits, p, room(len(logits)))
    order = np.argsort(-logits, kind="stable")
    assert len(ours) in fewest_in(order, shares(logits), p)
    assert ours.tolist() == sorted(order[: len(ours)].tolist())


@pytest.mark.parametrize("loudness", [0.5, 3.0])
def test_ours_and_llama_cpps_filters_draw_the_same_tokens(loudness: float) -> None:
    logits = row(3, 5000, loudness)
    for ours in (Sampling(top_p=0.9), Sampling(min_p=0.05), Sampling(typical_p=0.8)):
        # a top_k that cuts nothing goes first, so that the other one is llama.cpp's
        theirs = {name: getattr(ours, name) for name in ("top_p", "min_p", "typical_p")}
        expected = drawn(Sampling(top_k=5000, **theirs), logits, 300)
        assert drawn(ours, logits, 300) == expected


@pytest.mark.parametrize("k", [1, 40, 4999])
def test_our_top_k_is_llama_cpps(k: int) -> None:
    logits, candidates, chain = row(4, 5000), Candidates(5000), SamplerChain()
    api.llama_sampler_chain_add(chain.handle, api.llama_sampler_init_top_k(k))
    candidates.keep(np.arange(5000, dtype=np.int32), logits)
    candidates.apply(chain)
    assert candidates.read()[0].tolist() == best_k(logits, k, room(5000)).tolist()
    chain.close()
