"""llama.cpp's native samplers over its array of candidate tokens."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as api

from agent.engine.llama.arrays import Floats, Ints, view

CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class Candidates:
    """llama.cpp's array of candidate tokens, shared by all calls of an engine."""

    def __init__(self, vocabulary_size: int) -> None:
        self.ids: Ints = np.arange(vocabulary_size, dtype=np.int32)
        """The whole vocabulary."""
        self._data = np.zeros(vocabulary_size, dtype=CANDIDATE)
        self._struct = api.llama_token_data_array()

    def keep(self, ids: Ints, logits: Floats) -> None:
        """Make these tokens the candidates."""
        data = self._data[: len(ids)]
        data["id"], data["logit"], data["p"] = ids, logits, 0.0
        self._struct.data = self._data.ctypes.data_as(api.llama_token_data_p)
        self._struct.size = len(ids)
        self._struct.selected = -1
        self._struct.sorted = False

    def apply(self, chain: SamplerChain) -> None:
        """Run a chain over the candidates; it drops and reorders them."""
        api.llama_sampler_apply(chain.handle, ctypes.byref(self._struct))

    def read(self) -> tuple[Ints, Floats]:
        """Ids and logits of what is left, ordered by id."""
        data = view(self._struct.data, len(self._data), CANDIDATE)[: int(self._struct.size)]
        ids, logits = data["id"].copy(), data["logit"].copy()
        if (ids[1:] > ids[:-1]).all():  # penalties reorder nothing, and keep the whole vocabulary
            return ids, logits
        order = np.argsort(ids, kind="stable")
        return ids[order], logits[order]


class SamplerChain:
    """A native sampler chain; `close` frees it with the samplers in it."""

    def __init__(self, vocabulary_size: int) -> None:
        self._vocabulary_size = vocabulary_size
        self.handle = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())

    def add_logit_bias(self, bias: Sequence[tuple[int, float]]) -> None:
        array = (api.llama_logit_bias * len(bias))(*bias)
        size = self._vocabulary_size
        self._add(api.llama_sampler_init_logit_bias(size, len(bias), array))

    def add_penalties(self, last_n: int, repeat: float, frequency: float, presence: float) -> None:
        size = self._vocabulary_size
        self._add(api.llama_sampler_init_penalties(size, last_n, repeat, frequency, presence))

    def add_top_k(self, k: int) -> None:
        self._add(api.llama_sampler_init_top_k(k))

    def add_typical_p(self, p: float) -> None:
        self._add(api.llama_sampler_init_typical(p, 1))

    def add_top_p(self, p: float) -> None:
        self._add(api.llama_sampler_init_top_p(p, 1))

    def add_min_p(self, p: float) -> None:
        self._add(api.llama_sampler_init_min_p(p, 1))

    def accept(self, token: int) -> None:
        """Let the penalties know of a token."""
        api.llama_sampler_accept(self.handle, token)

    def close(self) -> None:
        """Free the chain."""
        api.llama_sampler_free(self.handle)

    def _add(self, sampler: Any) -> None:
        api.llama_sampler_chain_add(self.handle, sampler)
