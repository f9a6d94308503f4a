"""One kind of socket: keeps what its readers were last told, and tells all of them what changed.

A change is found and written once, however many read; nothing is looked at while nobody does. Who
does not read gets no changes, and everything anew once it has read what it was sent.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import structlog

from balancer.errors import QueueFull
from balancer.http.frames import text_frame
from balancer.http.management.live.reader import Reader
from balancer.observability.tree import Tree, difference

log = structlog.get_logger(__name__)

MAX_READERS = 256
"""Of one kind of socket."""
_MOST_OF_THE_TIME = 20
"""What takes long is done more seldom: a twentieth of the time at most."""


class Beat(Protocol):
    """Says when to look for changes."""

    def start(self, tick: Callable[[], None]) -> None: ...

    def stop(self) -> None: ...


class Timer:
    """A beat at an interval."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._handle: asyncio.TimerHandle | None = None

    def start(self, tick: Callable[[], None]) -> None:
        """From now on."""
        loop = asyncio.get_running_loop()

        def beat() -> None:
            started_s = loop.time()
            self._handle = beating = loop.call_later(self._interval_s, beat)
            try:
                tick()
            except Exception:  # a beat's outermost edge: those who read must not be forgotten
                log.exception("a live socket's beat failed")
            pause_s = _MOST_OF_THE_TIME * (loop.time() - started_s)
            if pause_s > self._interval_s and self._handle is beating:
                beating.cancel()
                self._handle = loop.call_later(pause_s, beat)

        self._handle = loop.call_later(self._interval_s, beat)

    def stop(self) -> None:
        """Until it is started again."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class Feed(Protocol):
    """What a socket of one kind shows."""

    def read(self) -> Tree:
        """Everything as it is now, made anew."""

    def beside(self) -> dict[str, Any]:
        """What else is part of a snapshot's data."""

    def news(self) -> dict[str, Any]:
        """What else is part of a change."""


class Room(ABC):
    """Readers of one kind, and the beat that goes while there are any."""

    def __init__(self, beat: Beat) -> None:
        self._beat = beat
        self._readers: dict[Reader, None] = {}

    @property
    def is_active(self) -> bool:
        """Whether anybody reads."""
        return bool(self._readers)

    def check_space(self) -> None:
        """Raises `QueueFull` where as many read as may."""
        if len(self._readers) >= MAX_READERS:
            raise QueueFull(
                f"{MAX_READERS} readers look at this already; close some", retry_after_s=30
            )

    def _enter(self, reader: Reader) -> bool:
        """Whether it is the first. Raises `QueueFull`."""
        self.check_space()
        self._readers[reader] = None
        if len(self._readers) > 1:
            return False
        self._beat.start(self._tick)
        return True

    def leave(self, reader: Reader) -> None:
        """It is gone; so is the beat with the last one."""
        self._readers.pop(reader, None)
        if not self._readers:
            self._beat.stop()

    def close(self) -> None:
        """End every socket: the balancer stops."""
        for reader in tuple(self._readers):
            reader.close("the balancer stops")
            self.leave(reader)

    @abstractmethod
    def refresh(self, reader: Reader) -> None:
        """Send it everything anew."""

    @abstractmethod
    def _tick(self) -> None: ...


class Hub(Room):
    """Of a socket that shows a tree. `seq` grows by one with each change that is told."""

    def __init__(self, feed: Feed, beat: Beat) -> None:
        super().__init__(beat)
        self._feed = feed
        self._state: Tree = {}
        self._seq = 0
        self._snapshot = b""
        """Of the present state; empty: not made yet."""

    def join(self, reader: Reader) -> None:
        """Send it everything, and what changes from now on. Raises `QueueFull`."""
        if self._enter(reader):
            self._state = self._feed.read()
            self._advance()
        self.refresh(reader)

    def leave(self, reader: Reader) -> None:
        """It is gone; with the last one what they were told is, too."""
        super().leave(reader)
        if not self.is_active:
            self._state, self._snapshot = {}, b""

    def refresh(self, reader: Reader) -> None:
        """Everything, as all others know it."""
        if not self._snapshot:
            data = {**self._state, **self._feed.beside()}
            message = {"type": "snapshot", "seq": self._seq, "data": data}
            self._snapshot = text_frame(msgspec.json.encode(message))
        reader.is_behind = False
        reader.send(self._snapshot)

    def _advance(self) -> None:
        self._seq += 1
        self._snapshot = b""

    def _tick(self) -> None:
        frame = self._change()
        for reader in tuple(self._readers):
            if reader.is_behind:
                if reader.has_read_all:
                    self.refresh(reader)
            elif frame and reader.is_full:
                reader.is_behind = True
            elif frame:
                reader.send(frame)

    def _change(self) -> bytes:
        """The message of what changed since the last time; empty: nothing did."""
        new = self._feed.read()
        changed, news = difference(self._state, new), self._feed.news()
        self._state = new
        if not (changed or news):
            return b""
        self._advance()
        message = {
            "type": "delta",
            "seq": self._seq,
            "set": changed.set,
            "gone": changed.gone,
            **news,
        }
        return text_frame(msgspec.json.encode(message))
