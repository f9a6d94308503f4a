"""Clients that do not read: bounded memory, a bounded time, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.fake_agent import FakeAgent, Script, events_of, long_pieces
from tests.support.running_balancer import (
    RunningBalancer,
    chat_bytes,
    eventually,
    running_balancer,
    small_buffers,
)

CAP_BYTES = 64 * 1024
ENDLESS = Script(pieces=long_pieces(3000, 500))
STEP_BYTES = 1000
"""A piece with its chunk around it has fewer."""


@asynccontextmanager
async def _unread(
    balancer: RunningBalancer, *, stream: bool = True, choices: int = 1
) -> AsyncIterator[socket.socket]:
    """A client that asks and then reads nothing."""
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await loop.sock_connect(sock, ("127.0.0.1", balancer.inference_port))
        await loop.sock_sendall(sock, chat_bytes(stream=stream, n=choices))
        yield sock


async def _read_all(sock: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    received = b""
    while b"[DONE]" not in received[-100:] and (data := await loop.sock_recv(sock, 65536)):
        received += data
    return received


async def test_a_client_that_reads_nothing_is_paused_then_dropped_while_others_stream() -> None:
    async with (
        running_balancer(
            small_buffers, max_unsent_bytes=CAP_BYTES, slow_client_timeout_s=0.5
        ) as balancer,
        FakeAgent(balancer.management_port, script=ENDLESS) as agent,
        _unread(balancer),
    ):
        call = await agent.call()
        await eventually(lambda: call.pauses == 1, "its generation is paused")
        agent.script = Script()
        for _ in range(3):
            other = await balancer.chat(stream=True)
            assert list(events_of(other.body))[-1] == "[DONE]"
        await eventually(lambda: balancer.is_at_rest, "it is dropped and its slot free")
        assert balancer.metric("paddler_slow_clients_dropped_total") == 1
        held = balancer.metric("paddler_stream_unsent_bytes_high_water")
        assert CAP_BYTES / 2 <= held <= CAP_BYTES


async def test_a_slow_client_counts_once_however_many_choices_it_asked_for() -> None:
    async with (
        running_balancer(
            small_buffers, max_unsent_bytes=CAP_BYTES, slow_client_timeout_s=0.5
        ) as balancer,
        FakeAgent(balancer.management_port, script=ENDLESS) as agent,
        _unread(balancer, choices=3),
    ):
        await eventually(lambda: len(agent.calls) == 3, "its choices run")
        calls = list(agent.calls.values())
        await eventually(lambda: balancer.is_at_rest, "it is dropped and its slots free")
        pauses = balancer.metric("paddler_stream_pauses_total")
        assert [call.pauses for call in calls] == [pauses] * 3
        assert balancer.metric("paddler_slow_clients_dropped_total") == 1


async def test_a_slow_client_that_reads_again_gets_every_byte() -> None:
    async with (
        running_balancer(small_buffers, max_unsent_bytes=CAP_BYTES) as balancer,
        FakeAgent(balancer.management_port, script=ENDLESS) as agent,
        _unread(balancer) as sock,
    ):
        call = await agent.call()
        await eventually(lambda: call.pauses >= 1, "its generation is paused")
        received = await _read_all(sock)
        body = b"".join(received.partition(b"\r\n\r\n")[2].split(b"\r\n")[1::2])
        *chunks, done = events_of(body)
        assert done == "[DONE]"
        text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
        assert text == "".join(str(piece) for piece in ENDLESS.pieces)


async def test_an_agent_that_ignores_the_pause_cannot_fill_memory() -> None:
    script = Script(pieces=ENDLESS.pieces, ignores_pause=True)
    async with (
        running_balancer(small_buffers, max_unsent_bytes=CAP_BYTES) as balancer,
        FakeAgent(balancer.management_port, script=script),
        _unread(balancer),
    ):
        await eventually(lambda: balancer.is_at_rest, "the client is dropped at the cap")
        held = balancer.metric("paddler_stream_unsent_bytes_high_water")
        assert held <= CAP_BYTES + STEP_BYTES


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_ended_but_is_not_read_does_not_stay_for_ever(stream: bool) -> None:
    async with (
        running_balancer(
            small_buffers, max_unsent_bytes=4 * CAP_BYTES, slow_client_timeout_s=0.3
        ) as balancer,
        FakeAgent(balancer.management_port, script=Script(pieces=long_pieces(400, 500))),
        _unread(balancer, stream=stream),
    ):
        await eventually(
            lambda: balancer.metric("paddler_slow_clients_dropped_total") == 1, "it is dropped"
        )
        await eventually(lambda: balancer.is_at_rest, "nothing is left")
        assert json.loads((await balancer.chat()).body)["object"] == "chat.completion"
