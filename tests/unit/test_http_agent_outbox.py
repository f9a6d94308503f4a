"""What waits to be written to an agent is bounded in bytes and in time."""

from __future__ import annotations

import asyncio
from typing import cast

from balancer.http.connection import ClientConnection
from balancer.http.management.agent_socket import STALLED_TRANSFER_S, Outbox
from protocol.transfer_messages import Credit
from tests.support.virtual_time import in_virtual_time

BIG = b"x" * (3 * 1024 * 1024)


class _Transport:
    """Takes everything, as if the agent's kernel did."""

    def __init__(self) -> None:
        self.written_bytes = 0

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, *, high: int) -> None: ...

    def write(self, data: bytes) -> None:
        self.written_bytes += len(data)


class _Drip:
    """A source that has nothing yet."""

    size_bytes = 3 * 1024 * 1024

    def __init__(self) -> None:
        self.ready = b""
        self.is_closed = False

    def take(self, most_bytes: int) -> bytes:
        piece, self.ready = self.ready[:most_bytes], self.ready[most_bytes:]
        return piece

    def close(self) -> None:
        self.is_closed = True


class _Connection:
    def __init__(self) -> None:
        self.is_agent = False
        self.transport = _Transport()

    def unsent_bytes(self) -> int:
        return 0


def _outbox() -> tuple[Outbox, _Transport, list[str]]:
    connection = _Connection()
    outbox = Outbox(cast(ClientConnection, connection))
    reasons: list[str] = []
    outbox.on_overflow = reasons.append
    return outbox, connection.transport, reasons


@in_virtual_time
async def test_an_agent_that_never_grants_credit_loses_its_link() -> None:
    outbox, _, reasons = _outbox()
    outbox.send(BIG)
    await asyncio.sleep(STALLED_TRANSFER_S + 1)
    outbox.send(BIG)
    await asyncio.sleep(0)
    assert reasons == ["the agent takes no part of a big message"]


@in_virtual_time
async def test_an_agent_that_takes_its_time_keeps_its_link() -> None:
    outbox, transport, reasons = _outbox()
    outbox.send(BIG)
    for _ in range(3):
        await asyncio.sleep(STALLED_TRANSFER_S - 1)
        outbox.on_transfer(Credit(transfer=1, bytes_taken=1024 * 1024))
        outbox.send(b"{}")
    await asyncio.sleep(0)
    assert reasons == []
    assert transport.written_bytes > len(BIG)


@in_virtual_time
async def test_time_without_big_messages_is_no_stall() -> None:
    outbox, _, reasons = _outbox()
    await asyncio.sleep(10 * STALLED_TRANSFER_S)
    outbox.send(BIG)
    await asyncio.sleep(0)
    assert reasons == []


@in_virtual_time
async def test_a_stream_that_waits_for_its_source_is_no_stall() -> None:
    outbox, transport, reasons = _outbox()
    source = _Drip()
    outbox.put_stream(1, source)
    await asyncio.sleep(10 * STALLED_TRANSFER_S)
    outbox.send(b"{}")
    source.ready = bytes(1000)
    outbox.wake_streams()
    await asyncio.sleep(0)
    assert transport.written_bytes > 1000
    assert (reasons, source.is_closed) == ([], False)
    source.ready = bytes(2 * 1024 * 1024)
    outbox.wake_streams()
    await asyncio.sleep(STALLED_TRANSFER_S + 1)
    outbox.send(b"{}")
    await asyncio.sleep(0)
    assert reasons == ["the agent takes no part of a big message"]


@in_virtual_time
async def test_a_stream_ends_with_its_socket_or_when_it_is_dropped() -> None:
    outbox, _, _ = _outbox()
    sources = [_Drip() for _ in range(3)]
    for call, source in enumerate(sources[:2], start=1):
        outbox.put_stream(call, source)
    outbox.drop_stream(1)
    assert [source.is_closed for source in sources] == [True, False, False]
    outbox.closed()
    outbox.put_stream(3, sources[2])
    assert all(source.is_closed for source in sources)
