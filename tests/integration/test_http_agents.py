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


async def test_an_agent_whose_heartbeats_stop_is_removed_and_its_requests_go_elsewhere(
    balancer: RunningBalancer,
) -> None:
    async with FakeAgent(balancer.management_port, script=HELD, heartbeat_s=None) as silent:
        async with asyncio.TaskGroup() as tasks:
            asked = tasks.create_task(balancer.chat())
            await silent.call()
            await eventually(lambda: _names(balancer) == [], "the silent one is given up")
            async with FakeAgent(balancer.management_port, name="two"):
                answer = await asked
        assert (answer.status, answer.headers["X-Paddler-Agent"]) == (200, "two")


# --- taking agents out ---


async def test_a_drained_agent_gets_nothing_new_and_what_runs_moves_at_the_deadline(
    balancer: RunningBalancer,
) -> None:
    async with FakeAgent(balancer.management_port, script=HELD) as first:
        reader, writer = await balancer.open_chat(stream=True)
        await first.tokens(await first.call(), "Hello")
        await reader.readuntil(b"Hello")
        async with FakeAgent(balancer.management_port, name="two") as second:
            url = f"{balancer.management_url}/agents/one/drain?deadline_s=0"
            async with balancer.session.post(url) as answer:
                assert (answer.status, (await answer.json())["state"]) == (200, "draining")
            rest = await reader.readuntil(b"[DONE]")
            assert b"world" in rest
            assert (await balancer.chat()).headers["X-Paddler-Agent"] == "two"
            assert len(second.started) == 2
            url = f"{balancer.management_url}/agents/one/undrain"
            async with balancer.session.post(url) as answer:
                assert (await answer.json())["state"] == "ready"
        writer.close()


async def test_a_removed_agent_stays_out_until_it_is_let_in(balancer: RunningBalancer) -> None:
    async with FakeAgent(balancer.management_port) as agent:
        url = f"{balancer.management_url}/agents/one"
        async with balancer.session.delete(url) as answer:
            assert answer.status == 200
        await agent.is_closed.wait()
        async with FakeAgent(balancer.management_port) as back:
            assert back.refusal is not None
            assert "undrain" in back.refusal.message
        async with balancer.session.post(f"{url}/undrain") as answer:
            assert (await answer.json())["state"] == "not_connected"
        async with FakeAgent(balancer.management_port) as back:
            assert back.refusal is None


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/agents/nobody/drain", 404),
        ("POST", "/agents/nobody/undrain", 404),
        ("DELETE", "/agents/nobody", 404),
        ("GET", "/agents/nobody", 404),
        ("GET", "/agents/one", 200),
        ("POST", "/agents/one/drain?deadline_s=soon", 400),
        ("POST", "/agents/one/drain?deadline_s=-1", 400),
        ("POST", "/agents/one/drain?deadline_s=nan", 400),
        ("POST", "/agents/one/drain?deadline=5", 400),
        ("GET", "/agents?model=x", 400),
        ("DELETE", "/agents/one/drain", 405),
        ("GET", "/requests/req_nobody/route", 404),
        ("DELETE", "/requests/req_nobody", 404),
    ],
)
async def test_management_by_name_answers_what_it_found(
    balancer: RunningBalancer, method: str, path: str, status: int
) -> None:
    async with FakeAgent(balancer.management_port):
        url = balancer.management_url + path
        async with balancer.session.request(method, url) as answer:
            assert answer.status == status


async def test_a_misspelt_deadline_drains_nothing_and_is_told_the_right_name(
    balancer: RunningBalancer,
) -> None:
    async with FakeAgent(balancer.management_port):
        url = f"{balancer.management_url}/agents/one"
        async with balancer.session.post(f"{url}/drain?deadline=5") as answer:
            error = (await answer.json())["error"]
        assert error["param"] == "deadline"
        assert error["details"]["allowed"] == ["deadline_s"]
        assert (await balancer.get_json(url))["state"] != "draining"


async def test_who_asks_for_the_route_of_an_embedding_is_told_that_it_has_none(
    balancer: RunningBalancer,
) -> None:
    async with balancer.session.get(f"{balancer.management_url}/requests/req_1/route") as answer:
        assert "embeddings have none" in (await answer.json())["error"]["message"]


async def test_requests_are_listed_cancelled_and_explained(balancer: RunningBalancer) -> None:
    async with FakeAgent(balancer.management_port, slots=1, script=HELD) as agent:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(balancer.chat())
            await agent.call()
            waiting = tasks.create_task(balancer.chat())
            url = f"{balancer.management_url}/requests"
            await eventually(
                lambda: balancer.metric("paddler_requests_waiting") == 1, "the second waits"
            )
            rows = (await balancer.get_json(url))["data"]
            states = [(row["state"], row["agent"], row["position"]) for row in rows]
            assert states == [("running", "one", None), ("waiting", None, 1)]
            assert rows[1]["estimated_start_s"] >= 1
            async with balancer.session.delete(f"{url}/{rows[1]['id']}") as answer:
                assert answer.status == 200
            assert (await waiting).error["code"] == "request_cancelled"
            await agent.finish(await agent.call())
            request_id = (await running).headers["X-Paddler-Request-Id"]
        route = await balancer.get_json(f"{url}/{request_id}/route")
        (decision,) = route["decisions"]
        assert (decision["chosen"], decision["outcome"]) == ("one", "finished")
        assert decision["candidates"][0]["slots_free"] == 1


async def test_ten_unusable_messages_close_the_link(balancer: RunningBalancer) -> None:
    async with FakeAgent(balancer.management_port) as agent:
        for _ in range(10):
            await agent.send_raw("garbage")
        await agent.is_closed.wait()
        assert _names(balancer) == []
