"""One at a time for the same thing: who comes second waits, and then finds the first one's answer.

Nobody's work is anybody else's task: a client that leaves takes its own along, and the next one
who waits for the same does it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class _Turn:
    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.waiting = 0


class SingleFlight:
    """Turns by name; a name takes no room once nobody waits for it."""

    def __init__(self, most: int) -> None:
        """`most`: names."""
        self._most = most
        self._turns: dict[bytes, _Turn] = {}
        self.waiting = 0
        """Also those that have their turn."""

    def is_full_for(self, name: bytes) -> bool:
        """Whether there is no room for a name; for one that is there, there always is."""
        return len(self._turns) >= self._most and name not in self._turns

    @asynccontextmanager
    async def turn(self, name: bytes) -> AsyncIterator[None]:
        """Wait for one's turn, and have it. Cancelling is safe."""
        turn = self._turns.setdefault(name, _Turn())
        self.waiting += 1
        turn.waiting += 1
        try:
            async with turn.lock:
                yield
        finally:
            self.waiting -= 1
            turn.waiting -= 1
            if not turn.waiting:
                del self._turns[name]
