"""llama.cpp's native samplers over its array of candidate tokens.

They are for what one of `agent.engine.sampling.cuts` has left: filling the array costs 1 ns a
token, and its nucleus and its typical set 5 and 9 ms over a vocabulary of 131k.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as api
from numpy.typing import NDArray

from agent.engine.llama.arrays import Floats, Ints, view

CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class Candidates:
    """llama.cpp's array of candidate tokens, and rows to work in: shared by all calls of an engine,
    and by them one at a time."""

    def __init__(self, vocabulary_size: int) -> None:
        self.row: Floats = np.empty(vocabulary_size, dtype=np.float32)
        """For logits that differ from the model's."""
        self.work: Floats = np.empty((3, vocabulary_size), dtype=np.float32)
        """For weights and the like."""
        self._data = np.zeros(vocabulary_size, dtype=CANDIDATE)
        self._struct = api.llama_token_data_array()

    def keep(self, ids: NDArray[Any], logits: Floats) -> None:
        """Make these tokens the candidates; at most the vocabulary, each once."""
        data = self._data[: len(ids)]
        data["id"], data["logit"], data["p"] = ids, logits, 0.0
        self._struct.data = self._data.ctypes.data_as(api.llama_token_data_p)
        self._struct.size = len(ids)
        self._struct.selected = -1
        self._struct.sorted = False

    def apply(self, chain: SamplerChain) -> None:
        """Run a chain over the candidates, at least one; it drops and reorders them."""
        api.llama_sampler_apply(chain.handle, ctypes.byref(self._struct))

    def read(self) -> tuple[Ints, Floats]:
        """Ids and logits of what is left, ordered by id."""
        data = view(self._struct.data, len(self._data), CANDIDATE)[: int(self._struct.size)]
        ids, logits = data["id"].copy(), data["logit"].copy()
        if (ids[1:] > ids[:-1]).all():  # min_p reorders nothing
            return ids, logits
        order = np.argsort(ids, kind="stable")
        return ids[order], logits[order]


class SamplerChain:
    """A native sampler chain; `close` frees it with the samplers in it."""

    def __init__(self) -> None:
        self.handle = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())

    def add_typical_p(self, p: float) -> None:
        self._add(api.llama_sampler_init_typical(p, 1))

    def add_top_p(self, p: float) -> None:
        self._add(api.llama_sampler_init_top_p(p, 1))

    def add_min_p(self, p: float) -> None:
        self._add(api.llama_sampler_init_min_p(p, 1))

    def close(self) -> None:
        """Free the chain."""
        api.llama_sampler_free(self.handle)

    def _add(self, sampler: Any) -> None:
        api.llama_sampler_chain_add(self.handle, sampler)
