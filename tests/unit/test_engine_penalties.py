"""The penalties are llama.cpp's, computed for the tokens that they concern."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from llama_cpp import llama_cpp as api

from agent.engine.frames import Sampling
from agent.engine.llama.sampler_chain import Candidates, SamplerChain
from agent.engine.sampling.penalties import Penalties
from tests.support.samplers import row

SIZE = 30


@given(
    st.lists(st.integers(0, SIZE - 1), max_size=60),
    st.integers(1, 40),
    st.floats(0.1, 3),
    st.floats(-2, 2),
    st.floats(-2, 2),
    st.integers(0, 99),
)
def test_penalties_are_llama_cpps(
    tokens: list[int], last_n: int, repeat: float, frequency: float, presence: float, seed: int
) -> None:
    chain = SamplerChain()
    native = api.llama_sampler_init_penalties(SIZE, last_n, repeat, frequency, presence)
    api.llama_sampler_chain_add(chain.handle, native)
    ours = Penalties(
        Sampling(
            penalty_last_n=last_n,
            repeat_penalty=repeat,
            frequency_penalty=frequency,
            presence_penalty=presence,
        )
    )
    for token in tokens:
        api.llama_sampler_accept(chain.handle, token)
        ours.accept(token)
    candidates, logits = Candidates(SIZE), row(seed, SIZE)
    candidates.keep(np.arange(SIZE, dtype=np.int32), logits)
    candidates.apply(chain)
    ours.apply(logits)
    np.testing.assert_allclose(logits, candidates.read()[1], rtol=1e-5, atol=1e-5)
    chain.close()
