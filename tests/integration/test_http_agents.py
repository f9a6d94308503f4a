"""Agents that misbehave: dropped or ignored with a line in the log, and the balancer goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs
from websockets.exceptions import ConnectionClosed

from protocol.codec import encode_notification
from protocol.to_balancer import Tokens
from tests.support.fake_agent import FakeAgent, Script
from tests.support.running_balancer import RunningBalancer, eventually, running_balancer

HELD = Script(is_held=True)


@pytest.fixture
async def balancer() -> AsyncIterator[RunningBalancer]:
    async with running_balancer(heartbeat_interval_s=0.2, heartbeat_misses=2) as balancer:
        yield balancer


def _names(balancer: RunningBalancer) -> list[str]:
    return [agent.name for agent in balancer.app.wiring.roster.agents()]


@pytest.mark.parametrize(
    "frame",
    ["garbage", "{}", "[]", "[" * 1000, '{"jsonrpc": "2.0", "method": "dance"}', "\x00", "[1,2,3]"],
)
async def test_garbage_is_dropped_with_one_line_and_the_agent_serves_on(
    balancer: RunningBalancer, frame: str
) -> None:
    async with FakeAgent(balancer.management_port) as agent:
        with capture_logs() as logs:
            await agent.send_raw(frame)
            await agent.send_raw(frame)
            assert (await balancer.chat()).status == 200
        assert [line["event"] for line in logs].count("message dropped") == 1


async def test_tokens_for_unknown_requests_are_ignored_with_one_line(
    balancer: RunningBalancer,
) -> None:
    async with FakeAgent(balancer.management_port) as agent:
        with capture_logs() as logs:
            step = Tokens(calls=(777, 778), token_ids=((1,), (2,)), deltas=("a", "b"))
            await agent.send_raw(encode_notification(step).decode())
            assert (await balancer.chat()).status == 200
        assert [line["event"] for line in logs].count("message dropped") == 1


@pytest.mark.parametrize(
    "frame",
    ["x" * 1_200_000, b"x" * 100_000_000],
    ids=["over a mebibyte", "a hundred megabytes"],
)
async def test_a_frame_that_may_not_be_ends_the_link_and_nothing_else(
    balancer: RunningBalancer, frame: str | bytes
) -> None:
    with capture_logs() as logs:
        async with FakeAgent(balancer.management_port, name="bad") as bad:
            with contextlib.suppress(ConnectionClosed):
                await bad.send_raw(frame)
            await eventually(lambda: _names(balancer) == [], "the bad one is gone")
            async with FakeAgent(balancer.management_port, name="good"):
                assert (await balancer.chat()).status == 200
    warnings = [line["event"] for line in logs if line["log_level"] in {"warning", "error"}]
    assert len([event for event in warnings if "frame" in event]) == 1


async def test_a_binary_frame_that_is_no_piece_is_dropped_and_ten_of_them_end_the_link(
    balancer: RunningBalancer,
) -> None:
    with capture_logs() as logs:
        async with FakeAgent(balancer.management_port, name="odd") as agent:
            await agent.send_raw(b"\x00binary")
            assert (await balancer.chat()).status == 200
            with contextlib.suppress(ConnectionClosed):
                for _ in range(9):
                    await agent.send_raw(b"\x00binary")
            await eventually(lambda: _names(balancer) == [], "it is gone")
    assert [line["event"] for line in logs].count("message dropped") == 1


async def test_an_agent_that_says_nothing_is_sent_away(
    balancer: RunningBalancer,
) -> None:
    silent = FakeAgent(balancer.management_port)
    await silent.open()
    await asyncio.wait_for(silent.socket.wait_closed(), 20)
    assert "register" in (silent.socket.close_reason or "")
    await silent.close()


async def test_a_second_agent_of_a_name_is_refused_with_the_remedy_and_the_first_unharmed(
    balancer: RunningBalancer,
) -> None:
    async with FakeAgent(balancer.management_port, script=HELD, heartbeat_s=0.05) as first:
        reader, writer = await balancer.open_chat(stream=True)
        call = await first.call()
        async with FakeAgent(balancer.management_port, epoch="e2") as second:
            assert second.refusal is not None
            assert "--name" in second.refusal.message
        await first.finish(call)
        await reader.readuntil(b"[DONE]")
        writer.close()


async def test_the_same_agent_connecting_again_replaces_its_old_link(
    balancer: RunningBalancer,
) -> None:
    async with (
        FakeAgent(balancer.management_port) as first,
        FakeAgent(balancer.management_port) as again,
    ):
        assert again.refusal is None
        await first.is_closed.wait()
        assert (await balancer.chat()).status == 200
        assert len(again.started) == 1


async def test_an_agent_whose_heartbeats_stop_is_removed_and_its_requests_are_lost(
    balancer: RunningBalancer,
) -> None:
    async with FakeAgent(balancer.management_port, script=HELD, heartbeat_s=None):
        answer = await balancer.chat()
        assert answer.status == 502
        assert answer.error["code"] == "agent_lost"
        assert _names(balancer) == []


async def test_ten_unusable_messages_close_the_link(balancer: RunningBalancer) -> None:
    async with FakeAgent(balancer.management_port) as agent:
        for _ in range(10):
            await agent.send_raw("garbage")
        await agent.is_closed.wait()
        assert _names(balancer) == []
