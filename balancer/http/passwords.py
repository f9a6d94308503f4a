"""Compares passwords with their hashes, which is made to take long: on threads, and few at once."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import structlog
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

log = structlog.get_logger(__name__)

THREADS = 2
"""Each comparison takes tens of milliseconds of a core, and as much memory as its hash says."""


class Passwords:
    """The threads. `close` them."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher()
        self._threads = ThreadPoolExecutor(THREADS, "passwords")

    async def fits(self, password: str, password_hash: str) -> bool:
        """Whether a password is the one that was hashed. Who is cancelled while it waits for a
        thread leaves no work behind."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._fits, password, password_hash)

    def close(self) -> None:
        """Nobody waits for what is still compared."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _fits(self, password: str, password_hash: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except VerifyMismatchError:
            return False
        except (VerificationError, InvalidHashError) as error:  # as where memory is short
            log.error("a password could not be compared", reason=str(error))
            return False
