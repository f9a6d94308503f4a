"""Lines of the audit log on their way into a file: a bounded queue and one thread that writes.

Whoever hands a line in never waits for a disk. What cannot be written waits in the queue and is
tried again; what does not fit there is counted, and the log says so.
"""

from __future__ import annotations

import os
import stat
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Condition, Thread

import structlog

log = structlog.get_logger(__name__)

MOST_QUEUED = 10_000
TRIES_EVERY_S = 1.0
TELLS_EVERY_S = 60.0
STOP_PATIENCE_S = 5.0
"""A disk that hangs holds up the balancer's end no longer."""
_MODE = 0o600
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK


class AuditFile:
    """Appends lines to a file that its owner alone may read, and keeps so many bytes in so many
    files: PATH, and before it PATH.1, PATH.2, …"""

    def __init__(
        self,
        path: Path,
        *,
        bounds: Callable[[], tuple[int, int]],
        gap: Callable[[int], bytes],
        on_lost: Callable[[int], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`bounds` gives the bytes of one file, and how many files are kept; `gap` a line that
        says how many others are missing before it; `on_lost` hears of such, on any thread. Raises
        `OSError` where the file cannot be written."""
        self._path = path
        self._bounds = bounds
        self._gap = gap
        self._on_lost = on_lost
        self._now = now
        self._queue: deque[bytes] = deque()
        self._condition = Condition()
        self._thread: Thread | None = None
        self._is_closed = False
        self._is_reopened = False
        self._file: int | None = None
        self._told_s: float | None = None
        self.lost = 0
        """Lines that nobody will read."""
        self._missing = 0
        """Of these, since the last line that found its place."""
        self.fault = ""
        """Why the last line could not be written; empty: it was."""
        os.close(self._opened())

    def put(self, line: bytes) -> None:
        """Have a line written, soon. Never waits; more than 10,000 that wait are lost."""
        with self._condition:
            if self._is_closed or len(self._queue) >= MOST_QUEUED:
                self._lose(1)
                self._missing += 1
                return
            self._mark_gap()
            self._queue.append(line)
            if self._thread is None:
                self._thread = Thread(target=self._run, name="audit log", daemon=True)
                self._thread.start()
            self._condition.notify()

    def reopen(self) -> None:
        """Somebody moved the file away: the next line begins a new one."""
        with self._condition:
            self._is_reopened = True
            self._condition.notify()

    def close(self) -> None:
        """Write what waits, and end. What still waits after five seconds is lost."""
        with self._condition:
            self._mark_gap()
            self._is_closed = True
            self._condition.notify()
        if self._thread is not None:
            self._thread.join(STOP_PATIENCE_S)
        if left := len(self._queue):
            self._lose(left)
            log.error("audit log ends with lines unwritten", lines=left, reason=self.fault)

    def _mark_gap(self) -> None:
        if self._missing:
            self._queue.append(self._gap(self._missing))
            self._missing = 0

    def _lose(self, lines: int) -> None:
        self.lost += lines
        self._on_lost(lines)

    # --- on the thread ---

    def _run(self) -> None:
        while self._is_waiting():
            try:
                self._write_all()
            except OSError as error:
                self._failed(error)
                if self._is_closed:
                    break
        self._close_file()

    def _is_waiting(self) -> bool:
        """Sleep until there is something to write or to try again; False: that was all."""
        with self._condition:
            if self.fault:
                self._condition.wait_for(self._is_called, TRIES_EVERY_S)
            else:
                self._condition.wait_for(lambda: self._queue or self._is_called())
            if self._is_reopened:
                self._is_reopened = False
                self._close_file()
            return bool(self._queue) or not self._is_closed

    def _is_called(self) -> bool:
        return self._is_closed or self._is_reopened

    def _write_all(self) -> None:
        while self._queue:
            self._write(self._queue[0])
            self._queue.popleft()
            self.fault = ""

    def _write(self, line: bytes) -> None:
        """The whole line or nothing of it. Raises `OSError`."""
        file = self._current()
        most_bytes, _ = self._bounds()
        size = os.fstat(file).st_size
        if size and size + len(line) > most_bytes:
            self._rotate()
            file, size = self._current(), 0
        written = os.write(file, line)
        if written != len(line):
            os.ftruncate(file, size)
            raise OSError("the disk is full")

    def _current(self) -> int:
        """The file at the path, which somebody may have moved or removed."""
        if self._file is not None:
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._file), os.stat(self._path)):
                    return self._file
            self._close_file()
        self._file = self._opened()
        return self._file

    def _opened(self) -> int:
        file = os.open(self._path, _FLAGS, _MODE)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise OSError("it is no regular file")
            os.fchmod(file, _MODE)
        except OSError:
            os.close(file)
            raise
        return file

    def _rotate(self) -> None:
        """Every file gets the next number; the last one goes."""
        self._close_file()
        _, most_files = self._bounds()
        names = [self._path, *(Path(f"{self._path}.{n}") for n in range(1, most_files))]
        for older, newer in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
            with suppress(FileNotFoundError):
                newer.replace(older)
        if most_files == 1:
            self._path.unlink()

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _failed(self, error: OSError) -> None:
        self.fault = error.strerror or str(error)
        now = self._now()
        if self._told_s is None or now - self._told_s >= TELLS_EVERY_S:
            self._told_s = now
            log.error(
                "audit log cannot be written",
                file=str(self._path),
                reason=self.fault,
                waiting=len(self._queue),
                lost=self.lost,
            )
