"""C memory as numpy arrays, nothing copied."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

FLOAT = np.dtype(np.float32)
Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

REDUCED = np.dtype([("id", np.int32), ("logit", np.float32)])
Row = NDArray[Any]
"""Of one output: a float32 logit of every token, or a few tokens as `REDUCED`, ordered by id."""
Rows = Floats | list[Row]


def view(pointer: Any, most: int, kind: np.dtype[Any]) -> NDArray[Any]:
    """The memory behind a C pointer as an array, nothing copied.

    `most` bounds what may lie there, and should not vary: read no further than what does.
    """
    return view_at(ctypes.addressof(pointer.contents), most, kind)


def view_at(address: int, most: int, kind: np.dtype[Any]) -> NDArray[Any]:
    """As `view`, of an address."""
    memory = _bytes_type(most * kind.itemsize).from_address(address)
    return np.frombuffer(memoryview(memory).cast("B"), dtype=kind)


@lru_cache(maxsize=16)
def _bytes_type(size: int) -> Any:
    """Kept, because ctypes makes a class a size: 10 µs, and garbage for the collector."""
    return ctypes.c_char * size
