"""A KV cache, its sequences, and the decode."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as api

from agent.engine.frames import CacheType, EngineOptions, Switch
from agent.engine.llama.arrays import FLOAT, REDUCED, Floats, Row, view_at
from agent.engine.llama.backend_samplers import BackendSamplers, is_wanted
from agent.engine.llama.batch import Batch, EmbeddingBatch
from agent.engine.llama.devices import gpus
from agent.engine.llama.log import LlamaLog
from agent.engine.llama.memory import Memory, memory_kind
from agent.engine.llama.model import Model
from agent.engine.loading.cpu import sensible_threads
from agent.errors import ModelUnusable
from protocol.invariants import present

# without ctypes's pointer objects: 25 µs less when the caches are cold
_logits_address: Any = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(
    ("llama_get_logits", api._lib)
)

NO_ROOM = 1
"""llama_decode's code for a cache without enough free cells."""
DEFAULT_BATCH_TOKENS = 512
WARM_UP_TOKENS = 16
LEAST_CONTEXT_TOKENS = 2
"""One for the prompt, one for the answer."""

_CACHE_TYPES: dict[CacheType, int] = {
    "f16": api.GGML_TYPE_F16,
    "f32": api.GGML_TYPE_F32,
    "q8_0": api.GGML_TYPE_Q8_0,
}
FLASH_ATTENTION: dict[Switch, int] = {
    "auto": api.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "on": api.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": api.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}


def _share(tokens: int, slots: int, trained: int, *, unified: bool) -> int:
    """What one call may use. Of a common cache more than its part, but not past what the model was
    trained for: answers are noise there, unless so much was asked for."""
    even = max(tokens // slots, 1)
    return max(min(tokens, trained or tokens), even) if unified else even


def _params(options: EngineOptions) -> Any:
    """What does not depend on the model."""
    params = api.llama_context_default_params()
    params.n_threads = params.n_threads_batch = options.threads or sensible_threads()
    # a cache of the window only could not take a prefix up again
    params.swa_full = True
    params.type_k = params.type_v = _CACHE_TYPES[options.cache_type]
    params.flash_attn_type = FLASH_ATTENTION[options.flash_attention]
    params.no_perf = True
    return params


IDLE_SEQUENCES = 28
"""Sequences beyond the slots in a unified cache: idle prefixes, which share cells."""


class Context:
    """A KV cache with its sequences, and the batch that feeds it.

    The cache is split evenly among the slots, a sequence each, unless `unified_kv` is on
    (non-unified is faster with many independent sequences on CPU). Then a call may use all of it,
    and there are more sequences than slots, so that idle ones can keep their prefixes.
    """

    def __init__(self, model: Model, options: EngineOptions, log: LlamaLog) -> None:
        slots = options.slots
        most = api.llama_max_parallel_sequences()
        if not 1 <= slots <= most:
            raise ModelUnusable(f"{slots} slots: llama.cpp serves 1 to {most} at once.")
        unified = options.unified_kv == "on"
        # a recurrent model's sequences have a state each, and share none
        shares_cells = unified and memory_kind(model.handle) == "ranged"
        sequences = min(slots + IDLE_SEQUENCES, most) if shares_cells else slots
        wanted = options.context_tokens or slots * model.trained_context_tokens
        micro_batch = options.micro_batch_tokens or DEFAULT_BATCH_TOKENS
        batch = options.batch_tokens or micro_batch
        self._context_params = params = _params(options)
        params.n_ctx, params.n_seq_max = wanted, sequences
        params.n_batch = max(batch, micro_batch, sequences)
        params.n_ubatch = max(micro_batch, slots)
        params.kv_unified = unified
        reduces = is_wanted(options, has_gpu=bool(gpus()[0]))
        # reducing takes the rows' room again: then one of each sequence, not one of each token
        params.n_outputs_max = sequences if reduces else 0
        self.handle = api.llama_init_from_model(model.handle, params)
        if not self.handle:
            raise ModelUnusable(
                f"llama.cpp cannot make a context of {wanted} tokens for {slots} slots with a "
                f"{options.cache_type} cache: {log.last_error or 'no reason given'}. "
                "Use fewer --slots or a smaller --context; a q8_0 cache needs flash attention."
            )
        self.memory = Memory(self.handle, model.handle, sequences=sequences, unified=unified)
        self._vocabulary_size = model.vocabulary.size
        self.slots = slots
        self.kv_cells: int = api.llama_n_ctx(self.handle)
        # llama.cpp pads the length; what was asked for is what a call gets
        share = _share(wanted, slots, model.trained_context_tokens, unified=unified)
        self.context_tokens = min(api.llama_n_ctx_seq(self.handle), share)
        if self.context_tokens < LEAST_CONTEXT_TOKENS:
            raise ModelUnusable(
                f"A context of {wanted} tokens leaves a call of {slots} slots only "
                f"{self.context_tokens}: use a larger --context or fewer --slots."
            )
        self.batch_tokens = max(min(batch, int(api.llama_n_ubatch(self.handle))), slots)
        """Most tokens of one decode: at most a micro-batch, so that a cancel is never far away."""
        self.batch = Batch(self.batch_tokens)
        self._embedding_batch = EmbeddingBatch(self.batch_tokens)
        self._width = int(api.llama_model_n_embd_inp(model.handle))
        self._outputs = 0
        self._logits_at = 0
        self._logits: Floats = np.empty((0, 0), dtype=np.float32)
        self._all_logits = self._logits
        asked = options.backend_sampling == "on"
        samplers = BackendSamplers(self.handle, self._vocabulary_size, most_rows=sequences)
        self.samplers = samplers if reduces and samplers.is_offered(is_asked_for=asked) else None

    @property
    def most_outputs(self) -> int:
        """Of one sequence in one decode: for so many there is always room."""
        return 1 if self._context_params.n_outputs_max else self.batch_tokens

    def warm_up(self) -> None:
        """Decode a few tokens, as prompt and one by one; a wrong build dies here, not later.

        Raises `ModelUnusable`. Nothing is left of it in the cache.
        """
        count = min(WARM_UP_TOKENS, self.batch_tokens, self.context_tokens - 1)
        self.batch.clear()
        self.batch.add_prompt(np.zeros(count, dtype=np.int32), 0, 0, output=True)
        code = self.decode()
        self.batch.clear()
        others = self.slots - 1
        self.batch.add_decode([0] * self.slots, [count] + [0] * others, range(self.slots))
        code = code or self.decode()
        if code != 0:
            raise ModelUnusable(f"The first decode failed with llama.cpp's code {code}.")
        if not np.isfinite(self.logits()).any():
            raise ModelUnusable("The first decode gave no usable logits; is the file damaged?")
        for slot in range(self.slots):
            self.memory.forget(slot)
        if self.samplers is not None:
            self._warm_up_reduced(self.samplers)

    def decode(self) -> int:
        """Decode the batch; 0 is success, other values are llama.cpp's (1: no room in the cache).

        Releases the GIL. After a failure the cache may hold parts of the batch: `forget` them.
        """
        self._outputs = self.batch.outputs
        return self._decoded(self.batch.ready())

    def decode_embeddings(
        self, rows: Floats, start: int, sequence: int, *, output: bool, whole: bool
    ) -> int:
        """Decode embeddings in place of tokens: float32 [count, width], from position `start` on.

        `output`: the last one has logits. `whole`: they see each other, not only what is before.
        Returns as `decode` does.
        """
        if rows.ndim != 2 or rows.shape[1] != self._width:
            raise ValueError(f"embeddings of shape {rows.shape}, the model is {self._width} wide")
        self._embedding_batch.fill(rows, start, sequence, output=output)
        self._outputs = self._embedding_batch.outputs
        if whole:
            api.llama_set_causal_attn(self.handle, False)
        try:
            return self._decoded(self._embedding_batch.ready())
        finally:
            if whole:
                api.llama_set_causal_attn(self.handle, True)

    def logits(self) -> Floats:
        """Raw logits of the outputs, rows in the batch's order; valid until the next decode."""
        if not self._outputs:
            return self._logits[:0]
        address = _logits_address(self.handle)
        if address != self._logits_at:
            most = view_at(address, self.batch_tokens * self._vocabulary_size, FLOAT)
            self._logits_at, self._all_logits = address, most.reshape(self.batch_tokens, -1)
            self._logits = self._all_logits[:0]
        if len(self._logits) != self._outputs:
            self._logits = self._all_logits[: self._outputs]
        return self._logits

    def rows(self) -> list[Row]:
        """The outputs' rows where some are reduced, in the batch's order; see `BackendSamplers`."""
        return present(self.samplers).rows(self.logits())

    def forget(self, sequence: int, start: int = 0) -> bool:
        """Drop a sequence from position `start` on; False: this model cannot drop a part."""
        return self.memory.forget(sequence, start)

    def _decoded(self, batch: Any) -> int:
        code: int = api.llama_decode(self.handle, batch)
        if code == 0 and self.memory.pending:
            self.memory.decoded()
        return code

    def _warm_up_reduced(self, samplers: BackendSamplers) -> None:
        """Reduce the rows of all sequences from now on: what that takes is taken now, not later."""
        for sequence in range(self.memory.sequences):
            samplers.reduce(sequence)
        self.batch.clear()
        self.batch.add_decode([0] * self.slots, [0] * self.slots, range(self.slots))
        if self.decode() != 0 or any(row.dtype != REDUCED for row in self.rows()):
            raise ModelUnusable(
                "The first decode with backend sampling failed; use --backend-sampling off."
            )
        for slot in range(self.slots):
            self.memory.forget(slot)

    def close(self) -> None:
        """Free the cache."""
        api.llama_free(self.handle)
        if self.samplers is not None:
            self.samplers.close()
