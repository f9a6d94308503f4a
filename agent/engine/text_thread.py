"""A thread beside the engine's loop for texts that take so long that running streams would wait:
long ones to tokenise, and grammars to compile.

llama.cpp's tokeniser and llguidance may be called from any thread, and their calls give the GIL
away. The thread touches vocabularies and grammars, nothing else: the one that decodes stays the
only one that does.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

LONG_TEXT_CHARS = 4096
"""Longer texts are for the thread; tokenising so many characters takes about a millisecond (up to
four, where each of them is 4 bytes long), and handing a text over costs a turn."""
READ_BYTES = 4096

Found = TypeVar("Found")


class TextJob(Generic[Found]):
    """One text on its way. Whoever gave it keeps it, to `forget` it."""

    def __init__(self, work: Callable[[], Found], then: Callable[[TextJob[Found]], None]) -> None:
        self._work = work
        self._then = then
        self._found: list[Found] = []
        self._error: Exception | None = None
        self.is_wanted = True

    def result(self) -> Found:
        """What the work returned; raises what it raised. To be asked for once."""
        if self._error is None:
            return self._found[0]
        try:
            raise self._error
        finally:
            self._error = None  # its traceback has this frame: a cycle with all that the job holds

    def do(self) -> None:
        """Work; on the thread."""
        try:
            self._found.append(self._work())
        except Exception as error:  # noqa: BLE001 (raised again on the loop, by `result`)
            self._error = error.with_traceback(None)

    def tell(self) -> None:
        """Hand the result over; on the loop."""
        if self.is_wanted:
            self._then(self)


class TextThread:
    """Does one job after the other. How many may wait is bounded by those who give them.

    `wakes` is a file descriptor that can be read when a job is done; `collect` empties it.
    """

    def __init__(self) -> None:
        self._first: deque[TextJob[Any]] = deque()
        self._others: deque[TextJob[Any]] = deque()
        self._done: deque[TextJob[Any]] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread: threading.Thread | None = None
        self.wakes, self._waker = os.pipe()
        os.set_blocking(self.wakes, False)

    def do(
        self, work: Callable[[], Found], then: Callable[[TextJob[Found]], None], *, first: bool
    ) -> TextJob[Found]:
        """Have `work` done on the thread and `then` called by `collect`; `first`: before all jobs
        that are not."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="texts", daemon=True)
            self._thread.start()
        job = TextJob(work, then)
        with self._changed:
            (self._first if first else self._others).append(job)
            self._changed.notify()
        return job

    def forget(self, job: TextJob[Any]) -> None:
        """Nothing more is heard of a job; what was not begun is not done."""
        job.is_wanted = False
        with self._changed:
            for waiting in (self._first, self._others):
                with suppress(ValueError):
                    waiting.remove(job)

    def collect(self) -> None:
        """Hand over what is done by now. Nothing done costs next to nothing."""
        if not self._done:
            return
        try:
            # each job is in `_done` before its byte is in the pipe: as many as were read are there
            finished = len(os.read(self.wakes, READ_BYTES))
        except BlockingIOError:
            return
        for _ in range(finished):
            self._done.popleft().tell()

    def close(self) -> None:
        """End the thread, after what it is at."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        os.close(self.wakes)
        os.close(self._waker)

    def _run(self) -> None:
        while (job := self._next()) is not None:
            job.do()
            self._done.append(job)
            os.write(self._waker, b"\0")
            del job  # else it would be kept until the next one comes

    def _next(self) -> TextJob[Any] | None:
        """Wait for a job; None: there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._first or self._others)
            if self._is_closed:
                return None
            return (self._first or self._others).popleft()
