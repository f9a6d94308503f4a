"""The real balancer and the real agent in one process, on a fake engine: the whole way and back."""

from __future__ import annotations

import asyncio
import io
import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from agent.engine.frames import Submit
from agent.settings import BalancerAddress
from balancer.app import App as Balancer
from balancer.app import build
from balancer.settings import Address, Settings
from tests.support.cluster import eventually
from tests.support.fake_engine import FakeEngine, words
from tests.support.running_agent import running_agent

LOOPBACK = Address("127.0.0.1", 0)


@dataclass(frozen=True)
class Site:
    """Both processes' parts, running in this one."""

    balancer: Balancer
    client: aiohttp.ClientSession
    engine: FakeEngine

    @property
    def agent_address(self) -> BalancerAddress:
        address = self.balancer.address_of("management")
        return BalancerAddress(address.host, address.port)

    def chat(self, text: str, **more: Any) -> Any:
        body = {"messages": [{"role": "user", "content": text}], **more}
        url = f"http://{self.balancer.address_of('inference')}/v1/chat/completions"
        return self.client.post(url, json=body)

    def slots_used(self) -> int:
        return sum(agent.slots_used for agent in self.balancer.wiring.roster.agents())

    def slots_total(self) -> int:
        return sum(agent.slots_total for agent in self.balancer.wiring.roster.agents())


@asynccontextmanager
async def site(engine: FakeEngine, **agent_settings: Any) -> AsyncIterator[Site]:
    """A balancer with one agent, ready to answer."""
    balancer = build(Settings(inference=LOOPBACK, management=LOOPBACK))
    balancer.bind()
    async with asyncio.TaskGroup() as tasks, aiohttp.ClientSession() as client:
        serving = tasks.create_task(balancer.run())
        target = Site(balancer, client, engine)
        try:
            async with running_agent(target.agent_address, engine, **agent_settings):
                await eventually(lambda: target.slots_total() > 0, what="the agent's slots")
                yield target
        finally:
            balancer.stop()
            balancer.stop()
            await serving


def echo(submit: Submit) -> Sequence[str]:
    """The prompt, said back token by token."""
    assert isinstance(submit.prompt, str)
    return [f"{word} " for word in submit.prompt.split()]


async def test_chats_beyond_the_slots_wait_and_none_is_mixed_up() -> None:
    engine = FakeEngine(echo, slots=4)

    async def ask(target: Site, number: int) -> str:
        async with target.chat(f"say {number} " * 20) as answer:
            body = await answer.json()
            assert answer.status == 200, body
            return str(body["choices"][0]["message"]["content"])

    async with site(engine) as target:
        answers = await asyncio.gather(*(ask(target, number) for number in range(16)))
    for number, text in enumerate(answers):
        assert text.count(f"say {number} ") >= 19
    assert engine.most_running == 4
    assert len(engine.submits) == 16


async def test_a_long_answer_arrives_whole_however_fast_it_comes() -> None:
    engine = FakeEngine(words(3000), pace="fast")
    async with site(engine) as target, target.chat("count", stream=True) as answer:
        text = (await answer.read()).decode()
    events = [line[6:] for line in text.splitlines() if line.startswith("data: {")]
    deltas = [json.loads(event)["choices"] for event in events]
    parts = [choices[0]["delta"].get("content") or "" for choices in deltas if choices]
    assert "".join(parts) == "".join(words(3000))
    assert text.rstrip().endswith("data: [DONE]")


async def test_clients_that_leave_at_any_moment_leave_every_slot_free() -> None:
    engine = FakeEngine(words(400), slots=4)
    dice = random.Random(7)

    async def leave(target: Site) -> None:
        patience_s = dice.choice([0.0, 0.001, 0.01, 0.05])
        try:
            async with asyncio.timeout(patience_s), target.chat("go", stream=True) as answer:
                async for _ in answer.content:
                    pass
        except TimeoutError:
            pass

    async with site(engine) as target:
        for _ in range(10):
            await asyncio.gather(*(leave(target) for _ in range(10)))
        await eventually(lambda: target.slots_used() == 0, what="the balancer sees free slots")
        await eventually(lambda: engine.running == 0, what="the engine has free slots")
        engine.pace = "fast"
        async with target.chat("still there?") as answer:
            assert answer.status == 200
        agents = list(target.balancer.wiring.roster.agents())
    assert [agent.name for agent in agents] == ["agent-1"]


async def test_an_engine_s_death_is_a_pause_for_its_requests_and_the_agent_serves_on() -> None:
    engine = FakeEngine(words(50), pace="held")
    async with site(engine) as target:
        running = asyncio.ensure_future(target.chat("go").__aenter__())
        await eventually(lambda: engine.running == 1, what="the request runs")
        engine.pace = "fast"
        engine.die("SIGKILL")
        answer = await running
        assert (answer.status, answer.headers["X-Paddler-Attempts"]) == (200, "2")
        await eventually(lambda: target.slots_total() == 4, what="slots again")
        async with target.chat("again") as again:
            assert again.status == 200


async def test_a_template_s_own_words_reach_the_client_as_a_400() -> None:
    template = "{{ raise_exception('Roles must alternate.') }}"
    async with (
        site(FakeEngine(), chat_template=template) as target,
        target.chat("hello") as answer,
    ):
        body = await answer.json()
    assert answer.status == 400
    assert "Roles must alternate." in body["error"]["message"]


async def test_a_request_of_two_mebibytes_reaches_the_engine_while_others_are_answered() -> None:
    big = "word " * 400_000
    engine = FakeEngine(lambda submit: [str(len(submit.prompt))], slots=4)
    async with site(engine) as target:

        async def complete(prompt: str) -> str:
            url = f"http://{target.balancer.address_of('inference')}/v1/completions"
            body = io.BytesIO(json.dumps({"prompt": prompt}).encode())
            async with target.client.post(url, data=body) as answer:
                assert answer.status == 200, await answer.text()
                text: str = (await answer.json())["choices"][0]["text"]
                return text

        answers = await asyncio.gather(complete(big), complete("small"), complete(big))
    assert list(answers) == [str(len(big)), "5", str(len(big))]


@pytest.mark.parametrize(
    ("given", "param"),
    [
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {"not": {"type": "null"}}},
                }
            },
            "response_format",
        ),
        ({"json_schema": {"type": "array", "items": {"not": {}}}}, "json_schema"),
    ],
)
async def test_a_schema_that_no_grammar_can_express_is_a_400_that_names_the_construct(
    given: dict[str, Any], param: str
) -> None:
    engine = FakeEngine(words(3))
    async with site(engine) as target, target.chat("hi", **given) as answer:
        error = (await answer.json())["error"]
    assert (answer.status, error["code"], error["param"]) == (400, "invalid_value", param)
    assert "`not`" in error["message"]
    assert not engine.submits
