"""One open socket as the hubs see it: takes frames, and says whether it can take more."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import WSCloseCode

from balancer.http.connection import ClientConnection
from balancer.http.frames import close_frame, text_frame
from balancer.settings import KIB

MAX_UNSENT_BYTES = 256 * KIB
"""A reader with more than this unsent is left out until it has read everything."""
SILENCE_S = 30.0
"""After so long without a word a reader is pinged."""
_CLOSE_PATIENCE_S = 2.0
_PING = text_frame(b'{"type":"ping"}')


class Reader:
    """Frames go straight to the transport: all readers of a message share its bytes."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._last_sent_s = self._loop.time()
        self._timer = self._loop.call_later(SILENCE_S, self._break_silence)
        self._is_closed = False
        self._can_be_written = asyncio.Event()
        self._can_be_written.set()
        connection.watcher = self
        self.is_behind = False
        """Whether it missed something."""
        self.missed = 0
        """How many lines, where lines are what it reads."""

    @property
    def is_full(self) -> bool:
        """Whether more lies unsent than may."""
        return self._connection.unsent_bytes() > MAX_UNSENT_BYTES

    @property
    def has_read_all(self) -> bool:
        """Whether nothing lies unsent."""
        return not self._connection.unsent_bytes()

    def send(self, frame: bytes) -> None:
        """Write a whole frame, unless the socket is gone."""
        transport = self._connection.transport
        if self._is_closed or transport is None or transport.is_closing():
            return
        self._last_sent_s = self._loop.time()
        transport.write(frame)

    def send_value(self, value: object) -> None:
        """Write a value as a message that is for this reader alone."""
        self.send(text_frame(msgspec.json.encode(value)))

    async def can_be_written(self) -> None:
        """Wait while so much lies unsent that nothing more should be made for it; a reader that
        takes nothing for long loses its connection."""
        await self._can_be_written.wait()

    def on_writing_paused(self) -> None:
        """Much lies unsent."""
        self._can_be_written.clear()

    def on_writing_resumed(self) -> None:
        """It reads again."""
        self._can_be_written.set()

    def on_dropped(self) -> None:
        """It read nothing for too long."""
        self._is_closed = True

    def close(self, reason: str, code: int = WSCloseCode.GOING_AWAY) -> None:
        """Say goodbye: the balancer stops, or whatever the code says."""
        self.send(close_frame(reason, code))
        self.closed()
        transport = self._connection.transport
        if transport is not None:
            transport.close()
            self._loop.call_later(_CLOSE_PATIENCE_S, transport.abort)

    def closed(self) -> None:
        """The socket is gone."""
        self._is_closed = True
        self._timer.cancel()

    def _break_silence(self) -> None:
        left_s = self._last_sent_s + SILENCE_S - self._loop.time()
        if left_s <= 0:
            self.send(_PING)
            left_s = SILENCE_S
        self._timer = self._loop.call_later(left_s, self._break_silence)
