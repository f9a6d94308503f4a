"""Sends inputs to a balancer's two ports over raw sockets, and judges what comes back."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Mapping
from random import Random

from msgspec import Struct, field

from balancer.http.exchange import Port
from tests.fuzz.mutations import Mutator
from tests.fuzz.recorded import recorded_requests

QUIET_S = 0.1
"""A connection on which nothing came for so long is closed from this side."""
LONGEST_S = 20.0
"""No input may keep its connection for so long."""
AT_ONCE = 32
SHOWN_BYTES = 2000

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) [A-Z]")
_BUSY = (502, 503, 504)


class Fault(Struct, frozen=True, kw_only=True):
    """An input that was answered as none may be; its number makes it again."""

    number: int
    why: str
    sent: bytes
    came: bytes


class Tally(Struct, kw_only=True):
    """What came of it. An answer to pipelined requests counts for each."""

    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)


async def campaign(
    ports: Mapping[Port, int],
    *,
    inputs: int,
    seed: int,
    first: int = 0,
    on_sent: Callable[[int], None] = lambda _: None,
) -> Tally:
    """Send so many inputs, a few at once. `on_sent` is told how many have been."""
    mutator = Mutator(recorded_requests(), seed=seed)
    numbers = iter(range(first, first + inputs))
    tally = Tally()

    async def work() -> None:
        for number in numbers:
            port, data = mutator.input(number)
            came = await _exchange(ports[port], data, Random(number))
            tally.statuses.update(int(status) for status in _STATUS.findall(came))
            if why := fault_of(came):
                shown = {"sent": data[:SHOWN_BYTES], "came": came[:SHOWN_BYTES]}
                tally.faults.append(Fault(number=number, why=why, **shown))
            tally.sent += 1
            on_sent(tally.sent)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(work())
    return tally


async def _exchange(port: int, data: bytes, dice: Random) -> bytes:
    """What came, until either side had enough; sometimes the client leaves at once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    came = bytearray()
    try:
        async with asyncio.timeout(LONGEST_S):
            writer.write(data)
            if dice.random() < 0.02:
                return b""
            while piece := await asyncio.wait_for(reader.read(65_536), QUIET_S):
                came += piece
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.transport.abort()
    return bytes(came)


def fault_of(came: bytes) -> str:
    """Why this is no answer of a balancer that is well; empty if it is."""
    if b'"code":"internal_error"' in came:
        return "an internal error"
    if came and not came.startswith(b"HTTP/1."):
        return "no HTTP"
    for found in _STATUS.finditer(came):
        status = int(found[1])
        if status >= 500 and status not in _BUSY:
            return f"status {status}"
        if status in _BUSY and b'"error":' not in came[found.end() :]:
            return f"status {status} without an error body"
    return ""
