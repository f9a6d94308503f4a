"""A file in memory that other processes open by its path, and that ends with its last user."""

from __future__ import annotations

import fcntl
import os

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class SharedFile:
    """Empty at first; `close` it. Who opened it meanwhile keeps what is in it."""

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("medium", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)

    @property
    def path(self) -> str:
        """For processes of this user, while this one has it."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    @property
    def size_bytes(self) -> int:
        """What is in it."""
        return os.fstat(self._descriptor).st_size

    def seal(self) -> None:
        """Have it changed by nobody any more. Raises `OSError` if somebody may be writing to it."""
        fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, _SEALS)

    def close(self) -> None:
        """Let it go. Once only."""
        os.close(self._descriptor)
