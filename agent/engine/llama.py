"""The only file that imports llama_cpp: a thin, typed layer over llama.cpp's low-level C API.

llama.cpp aborts the process on a wrong argument, so everything is checked before it is passed on.
Only one OS thread of a process may ever decode (a second one costs 30 % for good).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as api
from numpy.typing import NDArray

from agent.engine.cpu import sensible_threads
from agent.engine.frames import CacheType, EngineOptions, Switch
from agent.engine.stderr_lines import say
from agent.errors import ModelUnusable

DEFAULT_BATCH_TOKENS = 512
LOG_WARNING = 3
LOG_ERROR = 4
MAX_PIECE_BYTES = 4096
LEAST_CONTEXT_TOKENS = 2
"""One for the prompt, one for the answer."""

_FLOAT = np.dtype(np.float32)
Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

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


class LlamaLog:
    """llama.cpp's own log: warnings and errors become lines of ours, the rest is dropped."""

    def __init__(self) -> None:
        self.last_error = ""
        # kept: llama.cpp holds the bare pointer
        self._callback = api.llama_log_callback(self._take)
        api.llama_log_set(self._callback, ctypes.c_void_p(0))

    def _take(self, level: int, text: bytes | None, _user_data: object) -> None:
        if not text or level not in (LOG_WARNING, LOG_ERROR):
            return
        line = text.decode("utf-8", "replace").strip()
        if level == LOG_ERROR:
            self.last_error = line
        say(f"llama.cpp: {line}")


class Vocabulary:
    """The model's tokens."""

    def __init__(self, model: Any) -> None:
        self._vocab = api.llama_model_get_vocab(model)
        self.size: int = api.llama_vocab_n_tokens(self._vocab)
        if self.size <= 0:
            raise ModelUnusable("The model file has no vocabulary; it cannot generate text.")
        self.bos: int = api.llama_vocab_bos(self._vocab)
        self.eos: int = api.llama_vocab_eos(self._vocab)
        self.eot: int = api.llama_vocab_eot(self._vocab)
        self.adds_bos: bool = api.llama_vocab_get_add_bos(self._vocab) and self.bos >= 0
        self.end_tokens = tuple(
            token for token in range(self.size) if api.llama_vocab_is_eog(self._vocab, token)
        )
        buffer = ctypes.create_string_buffer(MAX_PIECE_BYTES)
        self.pieces = [self._piece(token, buffer, special=False) for token in range(self.size)]
        """What a token adds to the text: control tokens nothing."""
        self.shown_pieces = [self._piece(token, buffer, special=True) for token in range(self.size)]
        """The same, with the text of control tokens."""
        self.longest_piece = max(map(len, self.shown_pieces))

    def attributes(self, token: int) -> int:
        """llama.cpp's attribute bits of a token."""
        return int(api.llama_vocab_get_attr(self._vocab, token))

    def text(self, token: int) -> str:
        """A special token's text as templates expect it; "" if the model has no such token."""
        if not 0 <= token < self.size:
            return ""
        text: bytes | None = api.llama_vocab_get_text(self._vocab, token)
        return (text or b"").decode("utf-8", "replace")

    def tokenize(self, text: str) -> Ints:
        """The ids of a text. Special tokens written in it are parsed; none is added."""
        data = text.encode("utf-8", "replace")
        ids = np.empty(len(data) + 8, dtype=np.int32)
        pointer = ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        count = api.llama_tokenize(self._vocab, data, len(data), pointer, len(ids), False, True)
        if count < 0 and -count > len(ids):
            ids = np.empty(-count, dtype=np.int32)
            pointer = ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
            count = api.llama_tokenize(self._vocab, data, len(data), pointer, len(ids), False, True)
        if count < 0:
            raise ValueError(f"llama.cpp could not tokenise {len(data)} bytes")
        return ids[:count].copy()

    def _piece(self, token: int, buffer: Any, *, special: bool) -> bytes:
        size = api.llama_token_to_piece(self._vocab, token, buffer, MAX_PIECE_BYTES, 0, special)
        if size < 0:
            buffer = ctypes.create_string_buffer(-size)
            size = api.llama_token_to_piece(self._vocab, token, buffer, -size, 0, special)
        return bytes(buffer.raw[:size])


class Model:
    """Weights and vocabulary. Raises `ModelUnusable` with the reason and the remedy."""

    def __init__(self, options: EngineOptions, log: LlamaLog) -> None:
        path = checked_path(options.model_path)
        params = api.llama_model_default_params()
        params.n_gpu_layers = options.gpu_layers
        self.handle = api.llama_model_load_from_file(os.fsencode(path), params)
        if not self.handle:
            raise ModelUnusable(
                f"llama.cpp cannot load {path}: {log.last_error or 'no reason given'}. "
                "Is the file complete, and its architecture known to this llama.cpp?"
            )
        if not api.llama_model_has_decoder(self.handle) or api.llama_model_has_encoder(self.handle):
            raise ModelUnusable(f"{path} is not a decoder-only model; it cannot be served.")
        self.vocabulary = Vocabulary(self.handle)
        self.trained_context_tokens: int = api.llama_model_n_ctx_train(self.handle)
        self.size_bytes: int = api.llama_model_size(self.handle)
        self.parameters: int = api.llama_model_n_params(self.handle)
        self.version: str = api.llama_version().decode()

    def metadata(self, key: str) -> str:
        """A text value of the GGUF's metadata, "" if absent."""
        size = api.llama_model_meta_val_str(self.handle, key.encode(), None, 0)
        if size <= 0:
            return ""
        buffer = ctypes.create_string_buffer(size + 1)
        api.llama_model_meta_val_str(self.handle, key.encode(), buffer, size + 1)
        return buffer.value.decode("utf-8", "replace")

    @property
    def description(self) -> str:
        """Architecture, size and weight type in words."""
        buffer = ctypes.create_string_buffer(256)
        api.llama_model_desc(self.handle, buffer, 256)
        return buffer.value.decode("utf-8", "replace")

    @property
    def chat_template(self) -> str:
        """The default chat template of the GGUF, "" if it has none."""
        template: bytes | None = api.llama_model_chat_template(self.handle, None)
        return (template or b"").decode("utf-8", "replace")

    def close(self) -> None:
        """Free the weights."""
        api.llama_model_free(self.handle)


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
        most = _view(pointer, self.slots * self._vocabulary_size, _FLOAT)
        return most.reshape(self.slots, -1)[:rows]

    def forget(self, slot: int, start: int = 0) -> bool:
        """Drop a sequence from position `start` on; False: this model cannot drop a part."""
        if not 0 <= slot < self.slots or start < 0:
            raise ValueError(f"slot {slot}, position {start}")
        return bool(api.llama_memory_seq_rm(self._memory, slot, start or -1, -1))

    def close(self) -> None:
        """Free the cache."""
        api.llama_free(self.handle)


class Batch:
    """The arrays that llama_decode reads, owned by numpy: filled in slices, never one by one."""

    def __init__(self, capacity: int) -> None:
        self._token = np.zeros(capacity, dtype=np.int32)
        self._position = np.zeros(capacity, dtype=np.int32)
        self._sequence = np.zeros(capacity, dtype=np.int32)
        self._output = np.zeros(capacity, dtype=np.int8)
        self._one = np.ones(capacity, dtype=np.int32)
        stride = self._sequence.itemsize
        addresses = self._sequence.ctypes.data + stride * np.arange(capacity, dtype=np.uintp)
        self._size = 0
        self.outputs = 0
        self._struct = api.llama_batch()
        self._sequence_pointers = addresses  # the struct alone keeps nothing alive
        for field, array in (
            ("token", self._token),
            ("pos", self._position),
            ("n_seq_id", self._one),
            ("seq_id", addresses),
            ("logits", self._output),
        ):
            pointer_type = dict(api.llama_batch._fields_)[field]
            setattr(self._struct, field, array.ctypes.data_as(pointer_type))

    def clear(self) -> None:
        """Start anew."""
        self._size = self.outputs = 0

    def add_decode(self, tokens: Ints, positions: Ints, slots: Ints) -> None:
        """One token each of several sequences, all with an output."""
        here = self._take(len(tokens))
        self._token[here], self._position[here] = tokens, positions
        self._sequence[here] = slots
        self._output[here] = 1
        self.outputs += len(tokens)

    def add_prompt(self, tokens: Ints, start: int, slot: int, *, output: bool) -> None:
        """Consecutive tokens of one sequence; `output`: of the last one."""
        here = self._take(len(tokens))
        self._token[here] = tokens
        self._position[here] = np.arange(start, start + len(tokens), dtype=np.int32)
        self._sequence[here] = slot
        self._output[here] = 0
        if output:
            self._output[here.stop - 1] = 1
            self.outputs += 1

    @property
    def slots(self) -> list[int]:
        """The sequences in the batch."""
        return sorted({int(slot) for slot in self._sequence[: self._size]})

    def ready(self) -> Any:
        """The C struct."""
        self._struct.n_tokens = self._size
        return self._struct

    def _take(self, count: int) -> slice:
        start, self._size = self._size, self._size + count
        if count < 1 or self._size > len(self._token):
            raise ValueError(f"{self._size} tokens do not fit a batch of {len(self._token)}")
        return slice(start, self._size)


def _view(pointer: Any, most: int, kind: np.dtype[Any]) -> NDArray[Any]:
    """The memory behind a C pointer as an array, nothing copied.

    `most` bounds what may lie there, and should not vary: read no further than what does.
    """
    memory = _bytes_type(most * kind.itemsize).from_address(ctypes.addressof(pointer.contents))
    return np.frombuffer(memoryview(memory).cast("B"), dtype=kind)


@lru_cache(maxsize=16)
def _bytes_type(size: int) -> Any:
    """Kept, because ctypes makes a class a size: 10 µs, and garbage for the collector."""
    return ctypes.c_char * size


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
        data = _view(self._struct.data, len(self._data), CANDIDATE)[: int(self._struct.size)]
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


def checked_path(path: str) -> Path:
    """The file if it can be a GGUF; raises `ModelUnusable` saying what is wrong with it."""
    file = Path(path)
    try:
        with file.open("rb") as stream:
            magic = stream.read(4)
    except OSError as error:
        raise ModelUnusable(f"Cannot read the model file {path}: {error.strerror}.") from error
    if magic != b"GGUF":
        raise ModelUnusable(f"{path} is not a GGUF file (it begins with {magic!r}).")
    return file


def start_backend() -> LlamaLog:
    """Once a process, before anything else here."""
    log = LlamaLog()
    api.llama_backend_init()
    return log
