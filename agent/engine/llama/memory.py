"""What the KV cache holds for each sequence: copy, trim, shift, save, restore.

Kinds of memory: *ranged* (attention) can drop any end of a sequence; *whole* (recurrent and hybrid
models) knows one state for all of a sequence, which can be copied but not cut. Where layers see a
sliding *window* only, llama.cpp lets go of what lies before it: when cells get short in a unified
cache, and in every saved state. What is left goes on from its end, but not from before it.
"""

from __future__ import annotations

import ctypes
from typing import Any, Literal

import numpy as np
from llama_cpp import llama_cpp as api
from numpy.typing import NDArray

MemoryKind = Literal["ranged", "whole"]
State = NDArray[np.uint8]


def memory_kind(model: Any) -> MemoryKind:
    """Which kind of memory a model's contexts have."""
    whole = api.llama_model_is_recurrent(model) or api.llama_model_is_hybrid(model)
    return "whole" if whole else "ranged"


class Memory:
    """The sequences 0 to `sequences` - 1 of one context; positions are counted from 0.

    Copying between sequences of a cache that is not unified goes through host memory: llama.cpp's
    own copy would move the whole stream however little of it is used, and only in the next decode
    (docs/adr/0005). It is taken all the same where a saved state would lack what is behind the
    window.
    """

    def __init__(self, context: Any, model: Any, *, sequences: int, unified: bool) -> None:
        self._context = context
        self._memory = api.llama_get_memory(context)
        self.sequences = sequences
        self.unified = unified
        self.kind: MemoryKind = memory_kind(model)
        whole = self.kind == "whole"
        self.window: int = 0 if whole else api.llama_model_n_swa(model)
        """How many tokens the sliding layers see; 0: all layers see all."""
        # a shift moves cells, and others may hold them, too
        self.can_shift: bool = (
            not whole and not unified and bool(api.llama_memory_can_shift(self._memory))
        )
        self.pending: set[int] = set()
        """Sequences for which a copy or a shift waits for the next decode."""

    def forget(self, sequence: int, start: int = 0) -> bool:
        """Drop a sequence from position `start` on; False: this memory cannot drop a part."""
        self._check(sequence)
        if start < 0:
            raise ValueError(f"position {start}")
        return bool(api.llama_memory_seq_rm(self._memory, sequence, start or -1, -1))

    def copy(self, source: int, target: int, length: int) -> bool:
        """Give `target` the first `length` (>= 1) tokens of `source`; what it had is forgotten."""
        self._check(source)
        self._check(target)
        if source == target or length < 1:
            raise ValueError(f"{length} tokens from {source} to {target}")
        self.forget(target)
        if self.unified:
            # recurrent states have no ranges: they are shared as they are
            start, end = (-1, -1) if self.kind == "whole" else (0, length)
            api.llama_memory_seq_cp(self._memory, source, target, start, end)
        elif self.window:
            api.llama_memory_seq_cp(self._memory, source, target, -1, -1)
            self.pending |= {source, target}
            self.forget(target, length)
        else:
            return self.restore(target, self.save(source), length)
        return self.holds(target, length)

    def holds(self, sequence: int, length: int) -> bool:
        """Whether a sequence ends at position `length` - 1 and has all that its next token needs.

        That is every position from 0 on, or where layers have a window the last of them.
        """
        self._check(sequence)
        last = api.llama_memory_seq_pos_max(self._memory, sequence)
        if length == 0 or self.kind == "whole":
            return bool(last == length - 1)
        return bool(last == length - 1 and self.fewest(sequence) <= length)

    def fewest(self, sequence: int) -> int:
        """The fewest tokens (> 0) that a sequence can be cut to, for memory of kind *ranged*.

        What comes next sees itself and the window - 1 tokens before it: those have to be there.
        """
        self._check(sequence)
        first = max(api.llama_memory_seq_pos_min(self._memory, sequence), 0)
        return int(first + self.window - 1 if first else 0)

    def shift(self, sequence: int, start: int, count: int) -> None:
        """Drop `count` positions from `start` on and move what follows down to close the gap."""
        self._check(sequence)
        if not self.can_shift or start < 0 or count < 1:
            raise ValueError(f"cannot drop {count} positions at {start}")
        api.llama_memory_seq_rm(self._memory, sequence, start, start + count)
        api.llama_memory_seq_add(self._memory, sequence, start + count, -1, -count)
        self.pending.add(sequence)

    def decoded(self) -> None:
        """A decode has carried out what copies and shifts had left for it."""
        self.pending.clear()

    def is_pending(self, sequence: int) -> bool:
        """Whether a copy or a shift of a sequence waits for the next decode."""
        return sequence in self.pending

    def state_bytes(self, sequence: int) -> int:
        """How big a sequence's state is."""
        self._check(sequence)
        return int(api.llama_state_seq_get_size(self._context, sequence))

    def save(self, sequence: int) -> State:
        """A sequence's state as bytes; none while a copy or a shift waits for the next decode.

        All its positions, of sliding layers the last window.
        """
        self._check(sequence)
        if sequence in self.pending:
            return np.empty(0, dtype=np.uint8)
        size = self.state_bytes(sequence)
        state: State = np.empty(size, dtype=np.uint8)
        got = api.llama_state_seq_get_data(self._context, _bytes_of(state), size, sequence)
        return state[:got]

    def restore(self, sequence: int, state: State, length: int) -> bool:
        """Make a saved state a sequence's, cut to `length` tokens; False: it did not fit.

        Nor does it while a copy from or to the sequence waits for the next decode.
        """
        self.forget(sequence)
        if sequence in self.pending:
            return False
        data = np.ascontiguousarray(state)
        taken = api.llama_state_seq_set_data(self._context, _bytes_of(data), len(data), sequence)
        done = taken == len(data) and (
            self.holds(sequence, length)
            or (self.forget(sequence, length) and self.holds(sequence, length))
        )
        if not done:
            self.forget(sequence)
        return done

    def _check(self, sequence: int) -> None:
        if not 0 <= sequence < self.sequences:
            raise ValueError(f"sequence {sequence} of {self.sequences}")


def _bytes_of(data: State) -> Any:
    return data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
