"""llama.cpp's own way through a prompt with an image, as llama-server goes it; to compare with.

With one thread and without flash attention, which rounds to half floats.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
from llama_cpp import llama_cpp as api
from llama_cpp import mtmd_cpp as mtmd
from numpy.typing import NDArray

from agent.engine.llama.context import Context
from agent.engine.llama.model import Model

MARKER = "<__media__>"


def reference_logits(
    model: Model, context: Context, projector: Path, prompt: str, image: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """The logits behind a prompt whose `MARKER` is the image. Takes the context's sequence 0."""
    params = mtmd.mtmd_context_params_default()
    params.n_threads, params.print_timings, params.use_gpu = 1, False, False
    params.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_DISABLED
    handle = mtmd.mtmd_init_from_file(str(projector).encode(), model.handle, params)
    text = mtmd.mtmd_input_text()
    text.text = prompt.encode()
    text.text_len, text.add_special, text.parse_special = len(text.text), False, True
    height, width, _ = image.shape
    pixels = np.ascontiguousarray(image)
    bitmap = mtmd.mtmd_bitmap_init(
        width, height, pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
    )
    chunks = mtmd.mtmd_input_chunks_init()
    bitmaps = (ctypes.c_void_p * 1)(bitmap)
    assert mtmd.mtmd_tokenize(handle, chunks, ctypes.byref(text), bitmaps, 1) == 0
    position = api.llama_pos(0)
    batch = context.batch_tokens
    code = mtmd.mtmd_helper_eval_chunks(
        handle, context.handle, chunks, 0, 0, batch, True, ctypes.byref(position)
    )
    assert code == 0
    logits = np.ctypeslib.as_array(
        api.llama_get_logits_ith(context.handle, -1), (model.vocabulary.size,)
    )
    result: NDArray[np.float32] = logits.copy()
    mtmd.mtmd_input_chunks_free(chunks)
    mtmd.mtmd_bitmap_free(bitmap)
    mtmd.mtmd_free(handle)
    return result
