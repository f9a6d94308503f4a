"""Images and sounds as embeddings of the model, through mtmd and a projector file (mmproj).

What is shown is placed among the texts of a prompt by mtmd itself, which knows the tokens that a
model wants around it. Counting needs no pixels: a bitmap without data counts like one with.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as api
from llama_cpp import mtmd_cpp as mtmd
from numpy.typing import NDArray

from agent.engine.frames import EngineOptions
from agent.engine.kv_identity import file_digest
from agent.engine.llama.arrays import Floats, Ints
from agent.engine.llama.context import FLASH_ATTENTION
from agent.engine.llama.log import LlamaLog
from agent.engine.llama.model import Model, checked_path
from agent.engine.loading.cpu import sensible_threads
from agent.errors import ModelRejected


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """RGB: uint8 [height, width, 3], each side at least 1."""

    pixels: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Sound:
    """One channel at the projector's sample rate: float32 [samples], at least 2."""

    samples: Floats


Part = bytes | Image | Sound
"""Text in UTF-8, or what stands between texts."""
NOTHING = -1


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens of a text, or so many embeddings of the medium `parts[part]`, of which it may be one
    of several pieces (large images are cut up). `whole`: they see each other."""

    part: int
    count: int
    tokens: Ints | None = None
    whole: bool = False


class Projector:
    """The projector of a model. Raises `ModelUnusable` if it cannot serve it."""

    def __init__(self, model: Model, options: EngineOptions, log: LlamaLog) -> None:
        self._shown: _Chunks | None = None
        """Of a medium some of whose pieces are encoded: the others follow."""
        path = checked_path(options.mmproj_path)
        mtmd.mtmd_helper_log_set(log.callback, ctypes.c_void_p(0))
        params = mtmd.mtmd_context_params_default()
        params.print_timings = False
        params.use_gpu = options.gpu_layers != 0
        params.n_threads = options.threads or sensible_threads()
        params.flash_attn_type = FLASH_ATTENTION[options.flash_attention]
        log.last_error = ""
        self._handle: Any = mtmd.mtmd_init_from_file(os.fsencode(path), model.handle, params)
        if not self._handle:
            raise ModelRejected(
                f"llama.cpp cannot use {path} as this model's projector: "
                f"{log.last_error or 'no reason given'}. Give the mmproj file that was made for "
                "this model with --mmproj, or none."
            )
        if mtmd.mtmd_decode_use_mrope(self._handle):
            self.close()
            raise ModelRejected(
                f"{path}: this model gives the places of an image in two dimensions (M-RoPE), "
                "which is not supported yet. Start without --mmproj to serve its text."
            )
        self._width = int(api.llama_model_n_embd_inp(model.handle))
        self.sees: bool = mtmd.mtmd_support_vision(self._handle)
        self.hears: bool = mtmd.mtmd_support_audio(self._handle)
        self.sample_rate: int = max(mtmd.mtmd_get_audio_sample_rate(self._handle), 0)
        """Of sounds, in Hz; 0: it takes none."""
        self.digest = file_digest(options.mmproj_path)

    def pieces(self, parts: Sequence[Part]) -> list[Piece]:
        """What a prompt becomes, in order. Raises `ValueError` if mtmd cannot take a part.

        May be called from any thread; nothing is computed from pixels.
        """
        with closing(_Chunks(self._handle, parts, NOTHING)) as counted:
            return [_piece(self._handle, chunk) for chunk in counted.chunks]

    def embeddings(self, parts: Sequence[Part], pieces: Sequence[Piece], index: int) -> Floats:
        """Those of one of the `pieces` of these parts, of a medium: float32 [count, width].

        Holds the thread for as long as the projector computes; the GIL is free. Raises
        `ValueError`.
        """
        part = pieces[index].part
        if self._shown is None or self._shown.shows != (parts, part):
            self._forget_shown()
            self._shown = _Chunks(self._handle, parts, part)
        chunk = self._shown.chunks[index]
        code = mtmd.mtmd_encode_chunk(self._handle, chunk)
        count = int(mtmd.mtmd_input_chunk_get_n_tokens(chunk))
        if all(piece.part != part for piece in pieces[index + 1 :]):
            self._forget_shown()
        if code != 0:
            raise ValueError("llama.cpp could not encode it")
        rows = np.ctypeslib.as_array(mtmd.mtmd_get_output_embd(self._handle), (count, self._width))
        return rows.copy()

    def close(self) -> None:
        """Free the weights."""
        self._forget_shown()
        mtmd.mtmd_free(self._handle)

    def _forget_shown(self) -> None:
        if self._shown is not None:
            self._shown.close()
            self._shown = None


class _Chunks:
    """mtmd's chunks of a prompt; of its media only the part `data_of` has its data. `close` it.

    Raises `ValueError`.
    """

    def __init__(self, handle: Any, parts: Sequence[Part], data_of: int) -> None:
        self.shows = (parts, data_of)
        self._list = mtmd.mtmd_input_chunks_init()
        try:
            with _c_parts(parts, data_of) as array:
                code = mtmd.mtmd_tokenize_from_parts(handle, self._list, array, len(parts), False)
            if code != 0:
                raise ValueError(f"llama.cpp could not take it in (code {code})")
        except BaseException:
            self.close()
            raise
        size = mtmd.mtmd_input_chunks_size(self._list)
        self.chunks = [mtmd.mtmd_input_chunks_get(self._list, index) for index in range(size)]

    def close(self) -> None:
        mtmd.mtmd_input_chunks_free(self._list)


def _piece(handle: Any, chunk: Any) -> Piece:
    count = int(mtmd.mtmd_input_chunk_get_n_tokens(chunk))
    if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT:
        size = ctypes.c_size_t()
        tokens = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(size))
        ids = np.ctypeslib.as_array(tokens, (size.value,)).astype(np.int32)
        return Piece(NOTHING, count, tokens=ids)
    part = int(mtmd.mtmd_input_chunk_get_id(chunk))
    return Piece(part, count, whole=bool(mtmd.mtmd_decode_use_non_causal(handle, chunk)))


@contextmanager
def _c_parts(parts: Sequence[Part], data_of: int) -> Iterator[Any]:
    """The parts as mtmd reads them; the medium `data_of` has its data, others their size only."""
    bitmaps: list[Any] = []
    try:
        structs = []
        for index, part in enumerate(parts):
            if isinstance(part, bytes):
                text = mtmd.mtmd_input_text()
                text.text, text.text_len = part, len(part)
                text.add_special, text.parse_special = False, True
                structs.append(mtmd.mtmd_input_part(text=ctypes.pointer(text)))
            else:
                bitmap = _bitmap(part, with_data=index == data_of)
                bitmaps.append(bitmap)
                # what a chunk comes from
                mtmd.mtmd_bitmap_set_id(bitmap, b"%d" % index)
                structs.append(mtmd.mtmd_input_part(bitmap=bitmap))
        pointers = [ctypes.pointer(struct) for struct in structs]
        yield (ctypes.POINTER(mtmd.mtmd_input_part) * len(parts))(*pointers)
    finally:
        for bitmap in bitmaps:
            mtmd.mtmd_bitmap_free(bitmap)


def _bitmap(part: Image | Sound, *, with_data: bool) -> Any:
    """A bitmap, to be freed; it has its own copy of the data. Raises `ValueError`."""
    if isinstance(part, Image):
        height, width, _ = part.pixels.shape
        pixels = np.ascontiguousarray(part.pixels)
        bytes_ = pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)) if with_data else None
        made = mtmd.mtmd_bitmap_init(width, height, bytes_)
    else:
        samples = np.ascontiguousarray(part.samples)
        floats = samples.ctypes.data_as(ctypes.POINTER(ctypes.c_float)) if with_data else None
        made = mtmd.mtmd_bitmap_init_from_audio(len(samples), floats)
    if not made:
        raise ValueError("llama.cpp has no memory for it")
    return made
