"""Of a row's likeliest tokens the same one is chosen as of the whole row, ties included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.engine.frames import EngineOptions, Sampling, Submit
from agent.engine.llama.arrays import REDUCED, Row
from agent.engine.llama.backend_samplers import is_wanted
from agent.engine.llama.sampler_chain import Candidates
from agent.engine.sampling.reduced import MOST_TOP_K, ReducedSampler, best_of, takes_few
from agent.engine.sampling.sampler import Sampler
from protocol.grammar import Grammar
from tests.support.samplers import ENDS, SIZE, Floats, row

KEPT = 60


def reduced(whole: Floats, kept: int = KEPT) -> Row:
    """What llama.cpp leaves of a row: its largest, of equals at the border any."""
    ids = np.sort(np.argsort(-whole)[:kept])
    few = np.empty(kept, dtype=REDUCED)
    few["id"], few["logit"] = ids, whole[ids]
    return few


def sampling_that_takes_few() -> st.SearchStrategy[Sampling]:
    return st.builds(
        Sampling,
        seed=st.integers(0, 1 << 32),
        temperature=st.sampled_from((0.0, 0.3, 1.0, 2.0)),
        top_k=st.integers(1, 30),
        top_p=st.sampled_from((1.0, 0.9, 0.3)),
        min_p=st.sampled_from((0.0, 0.05, 0.5)),
        typical_p=st.sampled_from((1.0, 0.7)),
        xtc_probability=st.sampled_from((0.0, 0.5, 1.0)),
        xtc_threshold=st.sampled_from((0.01, 0.2)),
    )


@settings(max_examples=200, deadline=None)
@given(
    sampling=sampling_that_takes_few(),
    number=st.integers(0, 1000),
    steps=st.sampled_from((0, 1, 4)),
    possible=st.sampled_from((SIZE, 40, 3)),
)
def test_the_token_is_the_one_of_the_whole_row(
    sampling: Sampling, number: int, steps: int, possible: int
) -> None:
    assert takes_few(Submit(call=1, prompt="", sampling=sampling))
    whole = row(number)
    if steps:  # many tokens have equal logits
        whole = np.round(whole * steps) / np.float32(steps)
    whole[np.random.default_rng(number).permutation(SIZE)[possible:]] = -np.inf
    candidates = Candidates(SIZE)
    plain = Sampler(sampling, candidates, SIZE, ENDS)
    few = ReducedSampler(sampling, candidates, SIZE, ENDS)
    # as many may equal the last one that is kept as came in excess of what is kept
    border = np.sort(whole)[-sampling.top_k]
    kept = max(KEPT, int(np.count_nonzero(whole >= border)))
    for position in range(5):
        expected = plain.choose(whole, position, may_end=True)
        assert few.choose(reduced(whole, kept), position, may_end=True) == expected
        assert few.choose(whole, position, may_end=True) == expected
    plain.close()
    few.close()


def test_of_equally_likely_tokens_the_best_is_the_smallest_id() -> None:
    whole = row(1)
    whole[[150, 20, 90]] = 50.0
    assert best_of([reduced(whole), whole]) == [20, 20]


def test_a_row_without_a_finite_logit_has_no_best() -> None:
    nothing = np.full(SIZE, -np.inf, dtype=np.float32)
    assert best_of([reduced(nothing), nothing, row(2)])[:2] == [-1, -1]


def test_a_best_token_that_is_known_is_taken() -> None:
    sampler = ReducedSampler(Sampling(temperature=0.0), Candidates(SIZE), SIZE, ENDS)
    assert sampler.choose(reduced(row(3)), 0, may_end=True, best=7) == 7
    sampler.close()


GREEDY = Sampling(temperature=0.0)


@pytest.mark.parametrize(
    ("fields", "is_enough"),
    [
        ({"sampling": GREEDY}, True),
        ({"sampling": GREEDY, "stop": ("a",)}, True),
        ({"sampling": Sampling(top_k=1)}, True),
        ({"sampling": Sampling(top_k=MOST_TOP_K)}, True),
        ({"sampling": Sampling(top_k=MOST_TOP_K + 1)}, False),
        ({"sampling": Sampling(top_k=0, top_p=0.5)}, False),
        ({"sampling": Sampling(top_k=40, mirostat=1)}, False),
        ({"sampling": GREEDY, "min_tokens": 1}, False),
        ({"sampling": GREEDY, "grammar": Grammar(kind="regex", text="a")}, False),
        ({"sampling": Sampling(temperature=0.0, ignore_eos=True)}, False),
        ({"sampling": Sampling(temperature=0.0, top_logprobs=0)}, False),
        ({"sampling": Sampling(temperature=0.0, logit_bias=((1, 1.0),))}, False),
        ({"sampling": Sampling(temperature=0.0, presence_penalty=0.1)}, False),
        ({"sampling": Sampling(temperature=0.0, dry_multiplier=1.0)}, False),
    ],
)
def test_few_tokens_are_enough_where_nothing_else_looks_at_the_row(
    fields: dict[str, Any], is_enough: bool
) -> None:
    assert takes_few(Submit(call=1, prompt="", **fields)) is is_enough


@pytest.mark.parametrize(
    ("switch", "has_gpu", "gpu_layers", "speculation", "is_on"),
    [
        ("auto", True, -1, "off", True),
        ("auto", True, 1, "off", True),
        ("auto", True, 0, "off", False),
        ("auto", False, -1, "off", False),
        ("auto", True, -1, "auto", False),
        ("on", False, 0, "off", True),
        ("on", True, -1, "on", False),
        ("off", True, -1, "off", False),
    ],
)
def test_auto_is_on_where_the_output_layer_is_on_a_gpu_and_nothing_is_drafted(
    switch: str, has_gpu: bool, gpu_layers: int, speculation: str, is_on: bool
) -> None:
    options: Callable[..., EngineOptions] = EngineOptions
    made = options(
        model_path="", backend_sampling=switch, gpu_layers=gpu_layers, speculation=speculation
    )
    assert is_wanted(made, has_gpu=has_gpu) is is_on
