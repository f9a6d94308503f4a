"""A KV cache, its sequences, and the decode."""

from __future__ import annotations

from llama_cpp import llama_cpp as api

from agent.engine.cpu import sensible_threads
from agent.engine.frames import CacheType, EngineOptions, Switch
from agent.engine.llama.arrays import FLOAT, Floats, view
from agent.engine.llama.batch import Batch
from agent.engine.llama.log import LlamaLog
from agent.engine.llama.model import Model
from agent.errors import ModelUnusable

DEFAULT_BATCH_TOKENS = 512
LEAST_CONTEXT_TOKENS = 2
"""One for the prompt, one for the answer."""

_CACHE_TYPES: dict[CacheType, int] = {
    "f16": api.GGML_TYPE_F16,
    "f32": api.GGML_TYPE_F32,
    "q8_0": api.GGML_TYPE_Q8_0,
}
_FLASH_ATTENTION: dict[Switch, int] = {
    "auto": api.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "on": api.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": api.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}


class Context:
    """A KV cache with one sequence a slot, and the batch that feeds it.

    The cache is split evenly among the slots unless `unified_kv` is on (non-unified is faster with
    many independent sequences on CPU). A call may use `context_tokens` either way.
    """

    def __init__(self, model: Model, options: EngineOptions, log: LlamaLog) -> None:
        slots = options.slots
        most = api.llama_max_parallel_sequences()
        if not 1 <= slots <= most:
            raise ModelUnusable(f"{slots} slots: llama.cpp serves 1 to {most} at once.")
        wanted = options.context_tokens or slots * model.trained_context_tokens
        micro_batch = options.micro_batch_tokens or DEFAULT_BATCH_TOKENS
        batch = options.batch_tokens or micro_batch
        self._context_params = params = api.llama_context_default_params()
        params.n_ctx, params.n_seq_max = wanted, slots
        params.n_batch = max(batch, micro_batch, slots)
        params.n_ubatch = max(micro_batch, slots)
        params.n_threads = params.n_threads_batch = options.threads or sensible_threads()
        params.kv_unified = options.unified_kv == "on"
        params.type_k = params.type_v = _CACHE_TYPES[options.cache_type]
        params.flash_attn_type = _FLASH_ATTENTION[options.flash_attention]
        params.no_perf = True
        self.handle = api.llama_init_from_model(model.handle, params)
        if not self.handle:
            raise ModelUnusable(
                f"llama.cpp cannot make a context of {wanted} tokens for {slots} slots with a "
                f"{options.cache_type} cache: {log.last_error or 'no reason given'}. "
                "Use fewer --slots or a smaller --context; a q8_0 cache needs flash attention."
            )
        self._memory = api.llama_get_memory(self.handle)
        self._vocabulary_size = model.vocabulary.size
        self.slots = slots
        self.kv_cells: int = api.llama_n_ctx(self.handle)
        # llama.cpp pads the length; what was asked for is what a call gets
        self.context_tokens = min(api.llama_n_ctx_seq(self.handle), max(wanted // slots, 1))
        if self.context_tokens < LEAST_CONTEXT_TOKENS:
            raise ModelUnusable(
                f"A context of {wanted} tokens leaves a call of {slots} slots only "
                f"{self.context_tokens}: use a larger --context or fewer --slots."
            )
        self.batch_tokens = max(min(batch, int(api.llama_n_ubatch(self.handle))), slots)
        """Most tokens of one decode: at most a micro-batch, so that a cancel is never far away."""
        self.batch = Batch(self.batch_tokens)

    def decode(self) -> int:
        """Decode the batch; 0 is success, other values are llama.cpp's (1: no room in the cache).

        Releases the GIL. After a failure the cache may hold parts of the batch: `forget` them.
        """
        return int(api.llama_decode(self.handle, self.batch.ready()))

    def logits(self) -> Floats:
        """Raw logits of the outputs, rows in the batch's order; valid until the next decode."""
        rows = self.batch.outputs
        pointer = api.llama_get_logits(self.handle)
        most = view(pointer, self.slots * self._vocabulary_size, FLOAT)
        return most.reshape(self.slots, -1)[:rows]

    def forget(self, slot: int, start: int = 0) -> bool:
        """Drop a sequence from position `start` on; False: this model cannot drop a part."""
        if not 0 <= slot < self.slots or start < 0:
            raise ValueError(f"slot {slot}, position {start}")
        return bool(api.llama_memory_seq_rm(self._memory, slot, start or -1, -1))

    def close(self) -> None:
        """Free the cache."""
        api.llama_free(self.handle)
