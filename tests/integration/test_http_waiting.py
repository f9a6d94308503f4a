"""Requests that find no slot, health while they wait, and the end of the balancer itself."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from tests.support.fake_agent import FakeAgent, Script
from tests.support.running_balancer import RunningBalancer, eventually, running_balancer

HELD = Script(is_held=True)


def _have_arrived(balancer: RunningBalancer, agent: FakeAgent, requests: int) -> bool:
    return len(agent.started) + balancer.app.wiring.dispatcher.waiting == requests


async def test_eight_chats_on_two_slots_start_in_order_two_at_once() -> None:
    async with (
        running_balancer() as balancer,
        FakeAgent(balancer.management_port, slots=2) as agent,
        asyncio.TaskGroup() as tasks,
    ):
        asked = []
        for index in range(8):
            asked.append(tasks.create_task(balancer.chat(f"question {index}")))
            await eventually(partial(_have_arrived, balancer, agent, index + 1), "it arrived")
        for task in asked:
            assert (await task).status == 200
    assert agent.most_at_once <= 2
    questions = [request.messages[0].content for request in agent.started if request.messages]
    assert questions == [f"question {index}" for index in range(8)]


async def test_a_request_waits_for_the_first_agent_ever() -> None:
    async with running_balancer() as balancer, asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(balancer.chat(model="demo"))
        await eventually(lambda: balancer.app.wiring.dispatcher.waiting == 1, "it waits")
        async with FakeAgent(balancer.management_port):
            assert (await asked).status == 200


@pytest.mark.parametrize(
    ("settings", "status", "code"),
    [
        ({"queue_timeout_s": 0.0}, 503, "queue_full"),
        ({"max_waiting": 0}, 503, "queue_full"),
        ({"queue_timeout_s": 0.1}, 504, "queue_timeout"),
    ],
)
async def test_a_request_that_may_not_wait_longer_is_told_when_to_try_again(
    settings: dict[str, Any], status: int, code: str
) -> None:
    async with (
        running_balancer(**settings) as balancer,
        FakeAgent(balancer.management_port, slots=1, script=HELD) as agent,
        asyncio.TaskGroup() as tasks,
    ):
        first = tasks.create_task(balancer.chat())
        call = await agent.call()
        refused = await balancer.chat(stream=True)
        assert refused.status == status
        assert refused.error["code"] == code
        assert int(refused.headers["Retry-After"]) == refused.error["retry_after"] >= 1
        await agent.finish(call)
        assert (await first).status == 200


async def test_a_generation_over_its_own_timeout_ends_and_frees_its_slot() -> None:
    async with (
        running_balancer() as balancer,
        FakeAgent(balancer.management_port, script=HELD),
    ):
        answer = await balancer.chat(timeout=0.05)
        assert answer.status == 504
        assert answer.error["code"] == "generation_timeout"
        await eventually(lambda: balancer.is_at_rest, "the slot is free")


async def test_a_request_that_never_began_is_told_that_it_waited_and_for_which_model() -> None:
    async with (
        running_balancer() as balancer,
        FakeAgent(balancer.management_port, slots=1, script=HELD) as agent,
        asyncio.TaskGroup() as tasks,
    ):
        first = tasks.create_task(balancer.chat())
        call = await agent.call()
        answer = await balancer.chat(timeout=0.05)
        assert answer.error["code"] == "generation_timeout"
        assert (
            "waited for its `timeout` of 0.05 s and no slot for the model"
            in answer.error["message"]
        )
        await agent.finish(call)
        await first


async def test_a_request_that_no_agent_could_take_is_told_so() -> None:
    async with running_balancer() as balancer:
        answer = await balancer.chat(timeout=0.05)
        assert answer.error["code"] == "generation_timeout"
        assert "no agent could take requests for" in answer.error["message"]


async def test_a_silent_stream_carries_comments() -> None:
    async with (
        running_balancer(comment_interval_s=0.1) as balancer,
        FakeAgent(balancer.management_port, script=HELD) as agent,
    ):
        reader, writer = await balancer.open_chat(stream=True)
        call = await agent.call()
        await agent.tokens(call, "Hello")
        await reader.readuntil(b"Hello")
        await reader.readuntil(b"\r\n:\n\n\r\n")
        await reader.readuntil(b"\r\n:\n\n\r\n")
        await agent.finish(call)
        await reader.readuntil(b"[DONE]")
        writer.close()


async def test_a_stream_that_asks_for_it_is_told_where_it_stands_while_it_waits() -> None:
    async with (
        running_balancer() as balancer,
        FakeAgent(balancer.management_port, slots=1, script=HELD) as agent,
        asyncio.TaskGroup() as tasks,
    ):
        first, second = (tasks.create_task(balancer.chat(str(number))) for number in range(2))
        await eventually(lambda: balancer.app.wiring.dispatcher.waiting == 1, "one waits")
        body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
        asked = balancer.session.post(
            f"{balancer.url}/v1/chat/completions",
            json=body,
            headers={"X-Paddler-Queue-Updates": "1"},
        )
        async with asked as answer:
            assert answer.status == 200
            assert (await answer.content.readuntil(b"\n\n")).startswith(b": queue position=2 ")
            call = await agent.call()
            await agent.finish(call)
            assert (await answer.content.readuntil(b"\n\n")).startswith(b": queue position=1 ")
            for _ in range(2):
                await agent.finish(await agent.call())
            rest = await answer.content.read()
        assert b": queue" not in rest
        assert rest.endswith(b"data: [DONE]\n\n")
        assert {(await task).status for task in (first, second)} == {200}


@pytest.mark.parametrize("choices", [1, 3])
@pytest.mark.parametrize("headers", [{}, {"X-Paddler-Resumable": "1"}])
async def test_a_stream_that_asks_where_it_stands_and_is_refused_at_once_has_a_real_status(
    choices: int, headers: dict[str, str]
) -> None:
    async with (
        running_balancer(queue_timeout_s=0.0) as balancer,
        FakeAgent(balancer.management_port, slots=1, script=HELD) as agent,
    ):
        running = asyncio.ensure_future(balancer.chat())
        call = await agent.call()
        for model, status in (("unknown", 404), ("demo", 503)):
            messages = [{"role": "user", "content": "hi"}]
            body = {"messages": messages, "model": model, "n": choices, "stream": True}
            refused = await balancer.post(
                "/v1/chat/completions", body, {"X-Paddler-Queue-Updates": "1", **headers}
            )
            assert refused.status == status
        await agent.finish(call)
        assert (await running).status == 200


async def test_health_and_readiness_follow_the_fleet() -> None:
    async with running_balancer() as balancer:
        assert (await balancer.get_json(f"{balancer.url}/health"))["status"] == "unhealthy"
        assert (await balancer.get_json(f"{balancer.url}/ready"))["status"] == "not_ready"
        async with FakeAgent(balancer.management_port):
            await balancer.chat()
            assert (await balancer.get_json(f"{balancer.url}/health"))["status"] == "healthy"
            assert (await balancer.get_json(f"{balancer.url}/ready"))["status"] == "ready"
            detailed = await balancer.get_json(f"{balancer.url}/health?detailed=true")
            assert detailed["providers"]["healthy"] == 1
            assert detailed["performance"]["requests_per_second"] > 0
            assert detailed["health_score"] == 100
            (model,) = (await balancer.get_json(f"{balancer.url}/v1/models"))["data"]
            assert model["id"] == "demo"
            assert model["status"] == "healthy"
            (row,) = (await balancer.get_json(f"{balancer.management_url}/agents"))["data"]
            assert (row["name"], row["state"], row["slots_total"]) == ("one", "ready", 4)
        async with balancer.session.get(f"{balancer.url}/metrics") as answer:
            assert 'paddler_requests_total{route="/v1/chat/completions"' in await answer.text()


async def test_a_draining_balancer_finishes_what_runs_and_refuses_what_comes() -> None:
    async with (
        running_balancer() as balancer,
        FakeAgent(balancer.management_port, script=HELD) as agent,
        asyncio.TaskGroup() as tasks,
    ):
        running = tasks.create_task(balancer.chat())
        call = await agent.call()
        balancer.app.stop()
        await eventually(lambda: balancer.app.wiring.is_draining(), "it drains")
        refused = await balancer.chat()
        assert refused.status == 503
        assert refused.error["code"] == "draining"
        assert "Retry-After" in refused.headers
        assert (await balancer.get_json(f"{balancer.url}/health"))["status"] == "draining"
        assert (await balancer.get_json(f"{balancer.url}/ready"))["status"] == "draining"
        await agent.tokens(call, "Hello")
        await agent.finish(call)
        answer = await running
        assert answer.json()["choices"][0]["message"]["content"] == "Hello"
        await agent.is_closed.wait()


async def test_a_second_request_to_stop_ends_streams_with_an_event() -> None:
    async with (
        running_balancer() as balancer,
        FakeAgent(balancer.management_port, script=HELD) as agent,
    ):
        reader, writer = await balancer.open_chat(stream=True)
        await agent.tokens(await agent.call(), "Hello")
        await reader.readuntil(b"Hello")
        balancer.app.stop()
        balancer.app.stop()
        rest = await reader.read()
        assert b'"code":"draining"' in rest
        assert b"[DONE]" not in rest
        writer.close()
