"""Clients that leave at a random moment, in every way a TCP client can leave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import struct
from typing import Any, Literal

Moment = Literal["mid_request", "at_once", "after_a_while", "mid_stream"]
Way = Literal["close", "reset", "half_close"]

MOMENTS: tuple[Moment, ...] = ("mid_request", "at_once", "after_a_while", "mid_stream")
WAYS: tuple[Way, ...] = ("close", "reset", "half_close")

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def chat_request(body: dict[str, Any], *, path: str = "/v1/chat/completions") -> bytes:
    """A chat request as bytes on the wire."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


async def leave_at_random(port: int, body: dict[str, Any], dice: random.Random) -> None:
    """Ask, and leave at a moment and in a way that the dice choose.

    A half-closed client goes on reading until the server closes, as `curl` behind a pipe does;
    should the server never close, the caller's patience ends, not ours.
    """
    moment, way = dice.choice(MOMENTS), dice.choice(WAYS)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        request = chat_request({**body, "stream": dice.random() < 0.8})
        if moment == "mid_request":
            writer.write(request[: dice.randrange(1, len(request))])
            await writer.drain()
        else:
            writer.write(request)
            await writer.drain()
            await _stay(reader, moment, dice)
        await _leave(reader, writer, way)
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def _stay(reader: asyncio.StreamReader, moment: Moment, dice: random.Random) -> None:
    if moment == "after_a_while":
        await asyncio.sleep(dice.random() * 0.2)
    if moment == "mid_stream":
        # a client that waits too long for its first bytes leaves while it is waiting
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(1 + dice.random()):
                for _ in range(dice.randrange(1, 6)):
                    if not await reader.read(200):
                        return


async def _leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way) -> None:
    if way == "reset":
        sock: socket.socket = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    if way == "half_close":
        with contextlib.suppress(OSError):
            writer.write_eof()
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass
