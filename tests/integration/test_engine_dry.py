"""DRY gives llama.cpp's penalties: compared with its own sampler over a real vocabulary."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_cpp import llama_cpp as api

from agent.engine.frames import Sampling
from agent.engine.llama.sampler_chain import Candidates, SamplerChain
from agent.engine.llama.vocabulary import Vocabulary
from agent.engine.sampling.draws import Floats
from agent.engine.sampling.dry import Dry
from tests.support.tiny_gguf import tokens, write_tiny_gguf

LETTERS = [tokens().index(text) for text in ("a", "b", "he", "ll", "Ċ", ":")]
BREAKERS = (("\n", ":"), (), ("ab",), ("hell", "\n"), ("lla", "ba"))


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Vocabulary]]:
    path: Path = write_tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf")
    params = api.llama_model_default_params()
    params.vocab_only = True
    model = api.llama_model_load_from_file(os.fsencode(path), params)
    yield api.llama_model_get_vocab(model), Vocabulary(model)
    api.llama_model_free(model)


def native(vocab: Any, sampling: Sampling, accepted: list[int], logits: Floats) -> Floats:
    texts = [text.encode() for text in sampling.dry_sequence_breakers]
    chain, candidates = SamplerChain(), Candidates(len(logits))
    one = api.llama_sampler_init_dry(
        vocab,
        sampling.dry_multiplier,
        sampling.dry_base,
        sampling.dry_allowed_length,
        sampling.dry_penalty_last_n,
        (ctypes.c_char_p * len(texts))(*texts),
        len(texts),
    )
    api.llama_sampler_chain_add(chain.handle, one)
    for token in accepted:
        api.llama_sampler_accept(chain.handle, token)
    candidates.keep(np.arange(len(logits), dtype=np.int32), logits)
    candidates.apply(chain)
    penalised = candidates.read()[1]
    chain.close()
    return penalised


@given(
    accepted=st.lists(st.sampled_from(LETTERS), max_size=80),
    sampling=st.builds(
        Sampling,
        dry_multiplier=st.floats(0.1, 3),
        dry_base=st.sampled_from([1.0, 1.2, 1.75, 50.0]),
        dry_allowed_length=st.integers(0, 4),
        dry_penalty_last_n=st.sampled_from([1, 2, 7, 30, 1000]),
        dry_sequence_breakers=st.sampled_from(BREAKERS),
    ),
    asked_every=st.sampled_from([1, 3, 1000]),
)
def test_penalties_are_llama_cpps(
    vocabulary: tuple[Any, Vocabulary], accepted: list[int], sampling: Sampling, asked_every: int
) -> None:
    vocab, described = vocabulary
    logits = np.zeros(described.size, dtype=np.float32)
    dry = Dry(sampling, described.shown_pieces)
    for count, token in enumerate(accepted, start=1):
        dry.accept(token)
        if count % asked_every == 0:
            dry.apply(np.zeros(described.size, dtype=np.float32))
    ours = logits.copy()
    dry.apply(ours)
    theirs = native(vocab, sampling, accepted, logits)
    np.testing.assert_allclose(ours, np.maximum(theirs, -1e9), rtol=1e-4, atol=1e-5)
