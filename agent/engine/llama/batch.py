"""The arrays that llama_decode reads."""

from __future__ import annotations

from typing import Any

import numpy as np
from llama_cpp import llama_cpp as api

from agent.engine.llama.arrays import Ints


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
