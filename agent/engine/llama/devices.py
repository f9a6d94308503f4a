"""The GPUs that this build of llama.cpp sees, and their memory, through ggml's own functions."""

from __future__ import annotations

import ctypes
import platform
from typing import Any

from llama_cpp import _ggml
from llama_cpp import llama_cpp as api

from agent.engine.loading.fitting import Memory

_GPU, _INTEGRATED_GPU = 1, 2
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "ggml_backend_dev_count": (ctypes.c_size_t, []),
    "ggml_backend_dev_get": (ctypes.c_void_p, [ctypes.c_size_t]),
    "ggml_backend_dev_type": (ctypes.c_int, [ctypes.c_void_p]),
    "ggml_backend_dev_description": (ctypes.c_char_p, [ctypes.c_void_p]),
    "ggml_backend_dev_memory": (
        None,
        [ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_size_t)],
    ),
}


def most_sequences() -> int:
    """How many sequences this build of llama.cpp serves at once."""
    return int(api.llama_max_parallel_sequences())


def gpus() -> tuple[tuple[Memory, ...], bool, str]:
    """Memory of each GPU that llama.cpp would use, whether it is the host's, and their names.

    Like llama.cpp's own choice: integrated ones only where there are no others. A GPU that does not
    tell, or a build with GPUs whose functions are missing, has unknown memory.
    """
    if not api.llama_supports_gpu_offload():
        return (), False, ""
    ggml = _functions()
    if ggml is None:
        return (Memory(free=None),), False, "a GPU"
    devices = [ggml.ggml_backend_dev_get(i) for i in range(ggml.ggml_backend_dev_count())]
    kinds = {device: ggml.ggml_backend_dev_type(device) for device in devices}
    wanted = _GPU if _GPU in kinds.values() else _INTEGRATED_GPU
    shared = wanted == _INTEGRATED_GPU or platform.system() == "Darwin"
    chosen = [device for device in devices if kinds[device] == wanted]
    names = (ggml.ggml_backend_dev_description(device) or b"" for device in chosen)
    return (
        tuple(_memory(ggml, device) for device in chosen),
        shared,
        ", ".join(name.decode("utf-8", "replace") for name in names),
    )


def _functions() -> Any:
    """ggml's library with the types of its functions set; None: this build lacks some."""
    try:
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(_ggml.libggml, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError:
        return None
    return _ggml.libggml


def _memory(ggml: Any, device: Any) -> Memory:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    ggml.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
    if not total.value:
        return Memory(free=None)
    return Memory(free=free.value, total=total.value)
