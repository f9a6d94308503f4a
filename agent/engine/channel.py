"""The engine process's end of the socket pair: nothing here ever waits for the agent to read."""

from __future__ import annotations

import os
import select
import socket
import time

from agent.engine.frames import Event, FrameBuffer, encode

RECEIVE_BYTES = 1024 * 1024
MAX_PENDING_BYTES = 64 * 1024 * 1024


class AgentGone(Exception):
    """The agent closed the socket, died, or has not read for too long: the engine must end."""


class Channel:
    """Frames to and from the agent over a socket that never blocks.

    What the agent does not read piles up to 64 MiB, then `AgentGone` is raised.
    """

    def __init__(self, sock: socket.socket, parent_pid: int) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._parent_pid = parent_pid
        self._frames = FrameBuffer()
        self._pending = bytearray()
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._arrived = select.poll()
        self._arrived.register(sock, select.POLLIN)

    def also_wake_on(self, descriptor: int) -> None:
        """Let `wait` end when this can be read, too; whoever reads it empties it."""
        self._poll.register(descriptor, select.POLLIN)

    def send(self, event: Event) -> None:
        """Write what the socket takes now and keep the rest."""
        frame = encode(event)
        if not self._pending:
            sent = self._written(frame)
            if sent == len(frame):
                return
            frame = frame[sent:]
        self._pending += frame
        self.flush()
        if len(self._pending) > MAX_PENDING_BYTES:
            raise AgentGone(f"the agent left {len(self._pending)} bytes unread")

    def flush(self) -> None:
        """Write as much of what is pending as the socket takes now."""
        while self._pending and (sent := self._written(self._pending)):
            del self._pending[:sent]

    def flush_within(self, limit_s: float) -> None:
        """The last words: wait until they are written, or the limit has passed."""
        until = time.monotonic() + limit_s
        while self._pending and time.monotonic() < until:
            self._wait_for(select.POLLOUT, int(1000 * (until - time.monotonic())) + 1)
            self.flush()

    def receive(self) -> list[bytes]:
        """The frames that have come in by now. Raises `AgentGone`; `ValueError` for nonsense."""
        if os.getppid() != self._parent_pid:
            raise AgentGone("the agent's process ended")
        if self._pending:
            self.flush()
        if not self._arrived.poll(0):  # half the price of recv's BlockingIOError
            return []
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return []
        except OSError as error:
            raise AgentGone(str(error)) from error
        if not data:
            raise AgentGone("the agent closed the socket")
        return self._frames.feed(data)

    def wait(self, limit_ms: int) -> None:
        """Sleep until there is something to read, or room to write what is pending."""
        self._wait_for(select.POLLIN | (select.POLLOUT if self._pending else 0), limit_ms)

    def _written(self, data: bytes | bytearray) -> int:
        """How much of it the socket takes now."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise AgentGone(str(error)) from error

    def _wait_for(self, events: int, limit_ms: int) -> None:
        self._poll.modify(self._socket, events)
        self._poll.poll(limit_ms)
