"""The agent's end of the socket pair to its engine process, on the event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

import msgspec
import structlog

from agent.engine.frames import Command, Event, FrameBuffer, encode, event_decoder

log = structlog.get_logger()

MAX_UNSENT_BYTES = 64 * 1024 * 1024
DRAIN_LIMIT_S = 2.0


class EngineLink(asyncio.Protocol):
    """Frames in and out, synchronously: events go to `on_event` as they are read.

    An engine that sends nonsense, or reads nothing until 64 MiB wait for it, is given up through
    `give_up`. What is sent before `open` or after the end is dropped.
    """

    def __init__(self, on_event: Callable[[Event], None], give_up: Callable[[], None]) -> None:
        self._on_event = on_event
        self._give_up = give_up
        self._frames = FrameBuffer()
        self._transport: asyncio.Transport | None = None
        self._ended = asyncio.Event()

    async def open(self, sock: socket.socket) -> None:
        """Take over the connected socket."""
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: self, sock=sock)

    def send(self, command: Command) -> None:
        """Write without waiting."""
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(encode(command))
        if self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            log.error("engine does not read its commands, giving it up")
            self._give_up()

    def close(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()

    async def drained(self) -> None:
        """Wait until everything that the ended process had sent was handled, within a bound."""
        try:
            async with asyncio.timeout(DRAIN_LIMIT_S):
                await self._ended.wait()
        except TimeoutError:
            log.warning("the socket of an ended engine did not close")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            events = [event_decoder.decode(body) for body in self._frames.feed(data)]
        except (ValueError, msgspec.MsgspecError) as error:
            log.error("engine sent what is no frame, giving it up", error=str(error))
            self._give_up()
            self.close()
            return
        for event in events:
            self._on_event(event)

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            log.warning("the socket to the engine broke", error=str(exc))
        self._ended.set()
