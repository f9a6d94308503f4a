"""Clients that leave, in every phase and every way: their slots and places become free."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator
from typing import Literal

import pytest

from tests.support.fake_agent import FakeAgent, Script, long_pieces
from tests.support.leaving_clients import leave_at_random
from tests.support.running_balancer import RunningBalancer, eventually, running_balancer

Way = Literal["close", "reset", "half_close"]
WAYS: tuple[Way, ...] = ("close", "reset", "half_close")


@pytest.fixture
async def agent(balancer: RunningBalancer) -> AsyncIterator[FakeAgent]:
    script = Script(is_held=True)
    async with FakeAgent(balancer.management_port, slots=1, script=script) as agent:
        yield agent


def _leave(writer: asyncio.StreamWriter, way: Way) -> None:
    match way:
        case "close":
            writer.close()
        case "reset":
            sock: socket.socket = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        case "half_close":
            writer.write_eof()


@contextlib.asynccontextmanager
async def _chat(
    balancer: RunningBalancer, *, stream: bool
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await balancer.open_chat(stream=stream)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_while_waiting_leaves_the_waiting_room(
    balancer: RunningBalancer, agent: FakeAgent, way: Way, stream: bool
) -> None:
    async with _chat(balancer, stream=True), _chat(balancer, stream=stream) as (_, leaving):
        await eventually(lambda: balancer.app.wiring.dispatcher.waiting == 1, "it waits")
        _leave(leaving, way)
        await eventually(lambda: balancer.app.wiring.dispatcher.waiting == 0, "it is gone")
        assert len(agent.started) == 1
        assert balancer.slots_used == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_in_prefill_frees_its_slot(
    balancer: RunningBalancer, agent: FakeAgent, way: Way, stream: bool
) -> None:
    async with _chat(balancer, stream=stream) as (_, leaving):
        await agent.call()
        _leave(leaving, way)
        await eventually(lambda: balancer.is_at_rest, "the slot is free")
    assert balancer.metric("paddler_cancel_to_free_slot_seconds_count") == 1


@pytest.mark.parametrize("way", WAYS)
async def test_a_client_that_leaves_between_headers_and_first_token_frees_its_slot(
    way: Way,
) -> None:
    async with (
        running_balancer(first_token_header_delay_s=0.01) as balancer,
        FakeAgent(balancer.management_port, slots=1, script=Script(is_held=True)) as agent,
        _chat(balancer, stream=True) as (reader, leaving),
    ):
        await agent.call()
        await reader.readuntil(b"\r\n\r\n")
        _leave(leaving, way)
        await eventually(lambda: balancer.is_at_rest, "the slot is free")


@pytest.mark.parametrize("way", WAYS)
async def test_a_client_that_leaves_in_mid_stream_frees_its_slot(
    balancer: RunningBalancer, agent: FakeAgent, way: Way
) -> None:
    async with _chat(balancer, stream=True) as (reader, leaving):
        await agent.tokens(await agent.call(), "Hello")
        await reader.readuntil(b"Hello")
        _leave(leaving, way)
        await eventually(lambda: balancer.is_at_rest, "the slot is free")


@pytest.mark.parametrize("way", WAYS)
async def test_a_client_that_leaves_in_mid_request_leaves_nothing(
    balancer: RunningBalancer,
    agent: FakeAgent,
    way: Way,
) -> None:
    await balancer.get_json(f"{balancer.url}/v1/models")
    tasks_before = len(_request_tasks())
    _, writer = await asyncio.open_connection("127.0.0.1", balancer.inference_port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"
    )
    await eventually(lambda: len(_request_tasks()) > tasks_before, "its request is being read")
    _leave(writer, way)
    await eventually(lambda: len(_request_tasks()) <= tasks_before, "its task is gone")
    assert agent.started == []
    writer.transport.abort()


async def test_a_slot_stays_claimed_until_the_agent_confirms_the_cancel(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    agent.script = Script(is_held=True, ignores_cancel=True)
    async with _chat(balancer, stream=True) as (_, leaving):
        call = await agent.call()
        _leave(leaving, "close")
        await eventually(lambda: balancer.app.wiring.dispatcher.in_flight == 0, "it is gone")
        assert balancer.slots_used == 1
        await agent.finish(call, "cancelled")
        await eventually(lambda: balancer.is_at_rest, "the slot is free")


async def test_two_hundred_clients_that_leave_at_random_leave_nothing_behind(
    balancer: RunningBalancer,
) -> None:
    script = Script(pieces=long_pieces(60, 40), gap_s=0.005)
    async with FakeAgent(balancer.management_port, name="two", slots=8, script=script):
        await balancer.chat()
        tasks_before = len(_request_tasks())
        dice = random.Random(3)
        question = {"messages": [{"role": "user", "content": "hi"}]}
        gate = asyncio.Semaphore(40)

        async def leave() -> None:
            async with gate:
                await leave_at_random(balancer.inference_port, question, dice)

        await asyncio.gather(*(leave() for _ in range(200)))
        await eventually(lambda: balancer.is_at_rest, "every slot and place is free")
        await eventually(lambda: len(_request_tasks()) <= tasks_before, "no task is left")
        assert (await balancer.chat()).status == 200


def _request_tasks() -> list[asyncio.Task[None]]:
    """aiohttp's tasks: one a connection, one more while it serves a request."""
    return [
        task
        for task in asyncio.all_tasks()
        if "RequestHandler" in repr(task.get_coro()) or "ClientConnection" in repr(task.get_coro())
    ]
