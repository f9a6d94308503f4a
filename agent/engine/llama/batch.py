"""The arrays that llama_decode reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as api

from agent.engine.llama.arrays import Floats, Ints


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
        # single numbers through them cost a fifth of what numpy's indexing costs
        self._tokens, self._positions = self._token.data, self._position.data
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

    def add_decode(
        self,
        tokens: Sequence[int] | Ints,
        positions: Sequence[int] | Ints,
        slots: Sequence[int] | Ints,
    ) -> None:
        """One token each of several sequences, all with an output."""
        here = self._take(len(tokens))
        self._token[here], self._position[here] = tokens, positions
        self._sequence[here] = slots
        self._output[here] = 1
        self.outputs += len(tokens)

    def advance(self, tokens: Sequence[int]) -> None:
        """After `add_decode` alone: the same sequences again, at their next positions."""
        for at, token in enumerate(tokens):
            self._tokens[at] = token
            self._positions[at] += 1

    def add_drafted(self, token: int, drafted: Ints, position: int, slot: int) -> None:
        """A sequence's next token and guesses of those behind it, all with an output."""
        count = 1 + len(drafted)
        here = self._take(count)
        self._token[here.start] = token
        self._token[here.start + 1 : here.stop] = drafted
        self._position[here] = np.arange(position, position + count, dtype=np.int32)
        self._sequence[here] = slot
        self._output[here] = 1
        self.outputs += count

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

    def add_with_outputs(self, tokens: Ints, start: int, sequence: int) -> None:
        """Consecutive tokens of one sequence, all with an output. Of those that are embedded,
        llama.cpp wants no other way."""
        self.add_prompt(tokens, start, sequence, output=True)
        self._output[self._size - len(tokens) : self._size] = 1
        self.outputs += len(tokens) - 1

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


class EmbeddingBatch:
    """For one sequence's embeddings, which come in place of tokens."""

    def __init__(self, capacity: int) -> None:
        self._tokens = Batch(capacity)
        self._rows: Floats = np.empty((0, 0), dtype=np.float32)

    def fill(self, rows: Floats, start: int, sequence: int, *, output: bool) -> None:
        """Consecutive embeddings: float32 [count, width]; `output`: of the last one."""
        self._tokens.clear()
        self._tokens.add_prompt(np.zeros(len(rows), dtype=np.int32), start, sequence, output=output)
        self._rows = np.ascontiguousarray(rows)

    @property
    def outputs(self) -> int:
        """How many rows of logits come of it."""
        return self._tokens.outputs

    def ready(self) -> Any:
        """The C struct."""
        struct = self._tokens.ready()
        fields = dict(api.llama_batch._fields_)
        struct.token = None
        struct.embd = self._rows.ctypes.data_as(fields["embd"])
        return struct
