"""A sequence's state outside of the engine: a file in memory that is gone when nobody has it open.

Behind the bytes of the KV cache stand the ids of the tokens that they are of, 32 bits each, little-
endian. The engine writes and reads the first part, by a path under /proc; pieces of it all go out
and come in. Nothing here waits for a disk.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence

from agent.engine.loading.host_memory import host_memory
from protocol.transfer_messages import MAX_STATE_BYTES

FREE_SHARE = 8
"""A state takes at most this part of the memory that is free: some may be under way at once, and
the engine has a copy of its own for a moment."""
ID_BYTES = 4
LARGE_BYTES = 16 * 1024 * 1024
"""Closing a file frees its pages, which takes 0.1 ms a MiB; larger ones are closed elsewhere."""


def most_state_bytes() -> int:
    """How big a state may be now."""
    free = host_memory().free
    return MAX_STATE_BYTES if free is None else min(MAX_STATE_BYTES, free // FREE_SHARE)


class StateFile:
    """Filled once, then read once: a `Source` for what is sent. `on_close` hears when it is gone;
    `close_elsewhere` closes a large one's descriptor on another thread.

    Raises `OSError` where memory or descriptors are short.
    """

    def __init__(
        self,
        on_close: Callable[[], None] = lambda: None,
        close_elsewhere: Callable[[int], object] = os.close,
    ) -> None:
        self._descriptor = os.memfd_create("sequence-state", os.MFD_CLOEXEC)
        self._on_close = on_close
        self._close_elsewhere = close_elsewhere
        self._is_open = True
        self._taken = 0
        self.size_bytes = 0
        """As far as this process filled it, or knows that the engine did."""

    @property
    def path(self) -> str:
        """Where this process's children find it, as long as it is open."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def filled(self, size_bytes: int) -> None:
        """The engine wrote so much. Raises `OSError` if it did not."""
        found = os.fstat(self._descriptor).st_size
        if found != size_bytes:
            raise OSError(f"the engine wrote {found} bytes of {size_bytes}")
        self.size_bytes = size_bytes

    def append(self, data: bytes | memoryview) -> None:
        """Write behind what there is."""
        rest = memoryview(data)
        while rest:
            count = os.pwrite(self._descriptor, rest, self.size_bytes)
            self.size_bytes += count
            rest = rest[count:]

    def append_ids(self, token_ids: Sequence[int]) -> None:
        """Write the ids of the tokens behind their state."""
        self.append(struct.pack(f"<{len(token_ids)}i", *token_ids))

    def cut_ids(self, count: int) -> tuple[int, ...]:
        """Take so many ids off the end."""
        size = ID_BYTES * count
        data = os.pread(self._descriptor, size, self.size_bytes - size)
        self.size_bytes -= size
        os.ftruncate(self._descriptor, self.size_bytes)
        return struct.unpack(f"<{count}i", data)

    def take(self, most_bytes: int) -> bytes:
        """The next bytes to send."""
        count = min(most_bytes, self.size_bytes - self._taken)
        data = os.pread(self._descriptor, count, self._taken)
        self._taken += len(data)
        return data

    def close(self) -> None:
        """Free the memory. A second call does nothing."""
        if not self._is_open:
            return
        self._is_open = False
        if self.size_bytes > LARGE_BYTES:
            self._close_elsewhere(self._descriptor)
        else:
            os.close(self._descriptor)
        self._on_close()
