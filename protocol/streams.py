"""What travels without ever being in memory as a whole: sequence states, from where to where."""

from __future__ import annotations

from typing import Protocol


class Source(Protocol):
    """Where a transfer's bytes come from, one after the other."""

    @property
    def size_bytes(self) -> int:
        """All there will ever be."""

    def take(self, most_bytes: int) -> bytes:
        """The next bytes, at most so many; none: they are not here yet, ask again when told to."""

    def close(self) -> None:
        """Nothing more will be taken: all was, or nobody wants the rest. Comes once."""


class Sink(Protocol):
    """Where they go. Exactly one of `whole` and `failed` ends it, unless it was dropped."""

    @property
    def size_bytes(self) -> int:
        """What must come, no more and no less."""

    def put(self, piece: bytes) -> int:
        """The next bytes; how many more may be sent for them now (`Inbox.grant` grants later)."""

    def whole(self) -> None:
        """That was all."""

    def failed(self, reason: str) -> None:
        """What came is none of it; there will be nothing more."""


class Held:
    """A source of bytes that are in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._taken = 0

    @property
    def size_bytes(self) -> int:
        """All of them."""
        return len(self._data)

    def take(self, most_bytes: int) -> bytes:
        """The next ones."""
        piece = self._data[self._taken : self._taken + most_bytes]
        self._taken += len(piece)
        return piece

    def close(self) -> None:
        """Let go of them."""
        self._data = b""
