"""Rows of logits that llama.cpp reduces where they are, so that only a few numbers leave a GPU.

Of a sequence's row the likeliest tokens come back, found by llama.cpp's top_k in the graph of the
decode; the draw among them is ours (`agent.engine.sampling.reduced`). docs/adr/0008 has why, and
what of llama.cpp this relies on.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as api

from agent.engine.frames import EngineOptions
from agent.engine.llama.arrays import FLOAT, REDUCED, Floats, Row, view_at
from agent.engine.stderr_lines import say

CANDIDATES = 192
"""How many tokens come back of a row: more than any call keeps, so that those which equal the last
one it keeps are there, too."""

NO_TOP_K = "llama.cpp cannot run top_k where the output layer is"
NO_DRAFTS_EITHER = "leave --backend-sampling out to have speculation again"

_INT = np.dtype(np.int32)
_address_of_row = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32)
_ids_address: Any = _address_of_row(("llama_get_sampled_candidates_ith", api._lib))
_logits_address: Any = _address_of_row(("llama_get_sampled_logits_ith", api._lib))
_count: Any = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_int32)(
    ("llama_get_sampled_candidates_count_ith", api._lib)
)


def is_wanted(options: EngineOptions, *, has_gpu: bool) -> bool:
    """Whether rows are to be reduced where the model's output layer is.

    llama.cpp gives a GPU the output layer first, so with any layer there it has that one. Drafts
    need several outputs of a sequence in a batch, a reduced one has one: speculation goes first.
    """
    if options.backend_sampling == "off" or options.speculation != "off":
        return False
    return options.backend_sampling == "on" or (has_gpu and options.gpu_layers != 0)


class BackendSamplers:
    """The sequences of a context whose rows are reduced. `close` it after the context."""

    def __init__(self, context: Any, vocabulary_size: int, *, most_rows: int) -> None:
        self._context = context
        self._width = vocabulary_size
        self._kept = min(CANDIDATES, vocabulary_size)
        self._numbers = most_rows * vocabulary_size
        self._chains: dict[int, Any] = {}

    @property
    def sequences(self) -> frozenset[int]:
        """Whose rows are reduced."""
        return frozenset(self._chains)

    def is_offered(self, *, is_asked_for: bool) -> bool:
        """Whether this build and model can, found by trying; if not, a line says so.

        `is_asked_for`: not chosen by us, and speculation is off because of it.
        """
        self.reduce(0)
        done = self.sequences == {0}
        self.leave_whole(0)
        if not done:
            hint = f"; {NO_DRAFTS_EITHER}" if is_asked_for else ""
            say(f"backend sampling is off: {NO_TOP_K}{hint}")
        return done

    def reduce(self, sequence: int) -> bool:
        """Reduce a sequence's rows. Whether they were whole: then the next decode has llama.cpp
        reserve its graph anew."""
        if sequence in self._chains:
            return False
        # a chain can be given to a context once
        chain = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
        api.llama_sampler_chain_add(chain, api.llama_sampler_init_top_k(self._kept))
        taken = api.llama_set_sampler(self._context, sequence, chain)
        # it also returns true for a device that lacks the operation: there the name says so
        name = api.llama_sampler_name(api.llama_sampler_chain_get(chain, 0))
        if taken and name.startswith(b"+"):
            self._chains[sequence] = chain
        else:
            self._drop(sequence, chain)
        return True

    def leave_whole(self, sequence: int) -> bool:
        """Leave a sequence's rows as they are. Whether they were reduced, which see."""
        chain = self._chains.pop(sequence, None)
        if chain is None:
            return False
        self._drop(sequence, chain)
        return True

    def rows(self, whole: Floats) -> list[Row]:
        """The rows of the last decode in the batch's order: `whole`, reduced ones in their place.

        A reduced row has its tokens in the order of their ids. `whole` has no sense where one is.
        """
        rows: list[Row] = list(whole)
        count = len(rows)
        # by their distance from the end, which is how llama.cpp names rows
        reduced = [at for at in range(count) if _count(self._context, at - count)]
        if reduced:
            for at, row in zip(reduced, self._reduced(reduced, count), strict=True):
                rows[at] = row
        return rows

    def close(self) -> None:
        """Free the samplers; the context is freed already."""
        for chain in self._chains.values():
            api.llama_sampler_free(chain)
        self._chains.clear()

    def _reduced(self, rows: Sequence[int], count: int) -> Row:
        first = rows[0]
        start = 4 * first * self._width
        ids_at = _ids_address(self._context, first - count) - start
        logits_at = _logits_address(self._context, first - count) - start
        shape = (-1, self._width)
        all_ids = view_at(ids_at, self._numbers, _INT).reshape(shape)
        all_logits = view_at(logits_at, self._numbers, FLOAT).reshape(shape)
        ids, logits = all_ids[rows, : self._kept], all_logits[rows, : self._kept]
        order = ids.argsort(axis=1)
        table = np.empty(ids.shape, dtype=REDUCED)
        table["id"] = np.take_along_axis(ids, order, axis=1)
        table["logit"] = np.take_along_axis(logits, order, axis=1)
        return table

    def _drop(self, sequence: int, chain: Any) -> None:
        # what llama.cpp keeps of the graph with it is gone before the next decode looks at it
        api.llama_set_sampler(self._context, sequence, None)
        api.llama_sampler_free(chain)
