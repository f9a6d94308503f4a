"""Work on a file, one piece at a time, on a thread of its own: the event loop does not wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from balancer.errors import StoreFailed
from balancer.storage.sqlite_file import reason

MOST_AT_ONCE = 256
"""Pieces that run or wait for the thread; past it they fail at once."""
TIMEOUT_S = 5.0
"""For one of them, with its wait."""

_T = TypeVar("_T")


class OneThread:
    """The thread that owns a file's connection."""

    def __init__(self, what: str) -> None:
        """`what` the file holds, for errors."""
        self._what = what
        self._at_once = 0
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=what)

    def run_now(self, work: Callable[[], _T]) -> _T:
        """Do it and wait, as before the loop runs. What fails ends the thread."""
        try:
            return self._executor.submit(work).result()
        except BaseException:
            self._executor.shutdown()
            raise

    async def run(self, work: Callable[[], _T]) -> _T:
        """Raises `StoreFailed`. What is given up or cancelled still comes to its end."""
        if self._at_once >= MOST_AT_ONCE:
            words = f"{MOST_AT_ONCE} operations wait for the file of {self._what} already"
            raise StoreFailed(words)
        self._at_once += 1
        future = asyncio.get_running_loop().run_in_executor(self._executor, work)
        future.add_done_callback(self._on_done)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await asyncio.shield(future)
        except TimeoutError as error:
            words = f"no answer from the file of {self._what} in {TIMEOUT_S:g} s"
            raise StoreFailed(words) from error
        except SQLAlchemyError as error:
            raise StoreFailed(f"the file of {self._what}: {reason(error)}") from error

    async def close(self, last: Callable[[], None]) -> None:
        """Wait for what runs, do the last, and end."""
        await asyncio.get_running_loop().run_in_executor(self._executor, last)
        self._executor.shutdown(wait=False)

    def _on_done(self, future: asyncio.Future[Any]) -> None:
        self._at_once -= 1
        if not future.cancelled():
            future.exception()  # of what was given up nobody else asks
