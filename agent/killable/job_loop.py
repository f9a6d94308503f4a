"""Inside a killable worker process: jobs in, replies out, until the socket closes.

Time is the parent's business: it kills. Memory is capped here. Frames are length-prefixed bytes.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path

HEADER_BYTES = 4
MEMORY_OVER_BASE_BYTES = 256 * 1024 * 1024
_PR_SET_PDEATHSIG = 1


def framed(body: bytes) -> bytes:
    """A frame: the body with its length in front."""
    return len(body).to_bytes(HEADER_BYTES, "little") + body


def serve(descriptor: int, parent_pid: int, reply_to: Callable[[bytes], bytes]) -> None:
    """Answer jobs until the socket closes; an empty frame says that the process has started.

    What `reply_to` allocates may grow by 256 MiB over what the process has when it starts.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # they are for the agent; it ends us
    _die_with(parent_pid)
    link = socket.socket(fileno=descriptor)
    link.sendall(framed(b""))
    _cap_memory()
    while True:
        size = int.from_bytes(_received(link, HEADER_BYTES), "little")
        link.sendall(framed(reply_to(_received(link, size))))


def _cap_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_OVER_BASE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _die_with(parent_pid: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        raise SystemExit(0)


def _received(link: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = link.recv(min(size - len(data), 65536))
        if not piece:
            raise SystemExit(0)
        data += piece
    return bytes(data)
