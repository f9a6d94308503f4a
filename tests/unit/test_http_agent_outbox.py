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
