"""How much a caller may have: requests, tokens, places, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec import structs

from balancer.access import Allowance, Auth, Limits, LimitTable
from balancer.fleet.queries import TextAnswer, TextQuestion
from balancer.observability.scraped import LimitFigures
from protocol.jsonrpc import Request
from protocol.models import ServedModel
from protocol.refusals import RefusalCode
from protocol.rendering import Rendered
from protocol.to_agent import Embed, Rerank
from tests.support.fake_agent import PROMPT_TOKENS, FakeAgent, Script
from tests.support.keys import USER, bearer, credential, unlimited
from tests.support.running_balancer import (
    Answer,
    RunningBalancer,
    eventually,
    running_balancer,
)

SYSTEM = "system-key"
MODEL = ServedModel(name="demo", context_tokens=2048, embedding_dimensions=3, reranks=True)


def keys(limits: Limits, **classes: Limits) -> Auth:
    allowance = Allowance(limits=limits, classes=classes)  # type: ignore[arg-type]  # its keys are text
    return Auth(
        api_keys=(
            credential(USER, allowance=allowance),
            credential(SYSTEM, role="system"),
        )
    )


def held(balancer: RunningBalancer) -> LimitFigures:
    return balancer.app.wiring.gate.figures()


async def chat(balancer: RunningBalancer, **fields: Any) -> Answer:
    body = {"messages": [{"role": "user", "content": "hi"}], **fields}
    return await balancer.post("/v1/chat/completions", body, bearer(USER))


async def test_a_limited_answer_says_what_is_left_and_a_429_when_to_come_again() -> None:
    limits = Limits(requests_per_minute=3, burst=3, tokens_per_minute=10_000)
    async with (
        running_balancer(auth=keys(limits), limits=unlimited()) as balancer,
        FakeAgent(balancer.management_port, token=SYSTEM),
    ):
        answers = [await chat(balancer, max_tokens=100) for _ in range(4)]
        assert [answer.status for answer in answers] == [200, 200, 200, 429]
        assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == list("2100")
        assert {answer.headers["X-RateLimit-Limit"] for answer in answers} == {"3"}
        first, last = answers[0], answers[-1]
        assert 0 < int(first.headers["X-RateLimit-Reset"]) - time.time() <= 61
        assert first.headers["x-ratelimit-limit-requests"] == "3"
        assert first.headers["x-ratelimit-limit-tokens"] == "10000"
        spent = PROMPT_TOKENS + 4
        assert int(first.headers["x-ratelimit-remaining-tokens"]) == 10_000 - spent
        assert last.error["code"] == "rate_limit_exceeded"
        assert 50 < int(last.headers["Retry-After"]) <= 60
        assert last.headers["Retry-After"] == last.headers["X-RateLimit-Retry-After"]
        assert last.error["retry_after"] == int(last.headers["Retry-After"])


async def test_a_stream_s_headers_tell_the_limits_too() -> None:
    async with (
        running_balancer(auth=keys(Limits(requests_per_minute=9)), limits=unlimited()) as balancer,
        FakeAgent(balancer.management_port, token=SYSTEM),
    ):
        answer = await chat(balancer, stream=True)
        assert answer.headers["X-RateLimit-Remaining"] == "8"


async def test_callers_on_this_host_have_no_limits_while_nobody_has_to_sign_in(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    assert agent
    for _ in range(130):
        answer = await balancer.chat()
        assert answer.status == 200
        assert "X-RateLimit-Limit" not in answer.headers


async def test_a_route_s_own_limit_binds_who_has_none_of_their_own() -> None:
    table = LimitTable(roles={}, tiers={}, classes={"models": Limits(requests_per_minute=1)})
    auth = Auth(
        api_keys=(
            credential("plain"),
            credential("own", allowance=Allowance(classes={"models": Limits()})),
        )
    )
    async with running_balancer(auth=auth, limits=table) as balancer:
        statuses: dict[str, list[int]] = {}
        for key in ("plain", "own"):
            statuses[key] = []
            for _ in range(3):
                async with balancer.session.get(
                    balancer.url + "/v1/models", headers=bearer(key)
                ) as answer:
                    statuses[key].append(answer.status)
        assert statuses == {"plain": [200, 429, 429], "own": [200, 200, 200]}


async def test_places_are_taken_while_requests_run() -> None:
    async with (
        running_balancer(auth=keys(Limits(concurrent=1)), limits=unlimited()) as balancer,
        FakeAgent(balancer.management_port, token=SYSTEM, script=Script(is_held=True)) as agent,
    ):
        running = asyncio.create_task(chat(balancer))
        await agent.call()
        refused = await chat(balancer)
        assert (refused.status, refused.error["code"]) == (429, "concurrency_limit_exceeded")
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await eventually(lambda: balancer.is_at_rest, "the first to be gone")
        agent.script = Script()
        assert (await chat(balancer)).status == 200


async def test_a_stream_that_goes_on_without_its_client_keeps_its_place() -> None:
    resumable = {**bearer(USER), "X-Paddler-Resumable": "1"}
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    async with (
        running_balancer(
            auth=keys(Limits(concurrent=1)), limits=unlimited(), stream_unread_s=0.5
        ) as balancer,
        FakeAgent(balancer.management_port, token=SYSTEM, script=Script(is_held=True)) as agent,
    ):
        left = asyncio.create_task(balancer.post("/v1/chat/completions", body, resumable))
        await agent.call()
        left.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await left
        assert (await chat(balancer)).error["code"] == "concurrency_limit_exceeded"
        await eventually(lambda: balancer.is_at_rest, "the stream to be given up")
        await eventually(lambda: not held(balancer).entries, "its place to be free")
        agent.script = Script()
        assert (await chat(balancer)).status == 200


async def test_without_max_tokens_a_request_gets_what_the_limit_leaves() -> None:
    async with (
        running_balancer(auth=keys(Limits(tokens_per_minute=500)), limits=unlimited()) as balancer,
        FakeAgent(balancer.management_port, token=SYSTEM) as agent,
    ):
        assert (await chat(balancer)).status == 200
        capped = agent.started[0].max_tokens
        assert capped is not None
        assert 400 < capped < 500
        huge = await chat(balancer, max_tokens=501)
        assert (huge.status, huge.error["code"]) == (429, "token_limit_exceeded")
        assert "max_tokens" in huge.error["message"]


class CountingAgent(FakeAgent):
    """Says of every prompt that it has few tokens."""

    def answer(self, question: TextQuestion) -> TextAnswer:
        del question
        return Rendered(prompt_tokens=PROMPT_TOKENS)


async def test_where_only_an_estimate_is_in_the_way_an_agent_counts_the_prompt() -> None:
    question = "antidisestablishmentarianism " * 20  # 580 bytes, and so estimated at 200 tokens
    async with (
        running_balancer(auth=keys(Limits(tokens_per_minute=150)), limits=unlimited()) as balancer,
        CountingAgent(balancer.management_port, token=SYSTEM) as agent,
    ):

        async def ask(**fields: Any) -> int:
            turns = [{"role": "user", "content": question}]
            return (await chat(balancer, messages=turns, **fields)).status

        assert await ask(max_tokens=50) == 200
        assert len(agent.asked) == 1
        assert await ask(max_tokens=100) == 429  # whatever the prompt has
        assert len(agent.asked) == 1
        assert await ask() == 200
        assert agent.started[-1].max_tokens == 150 - 11 - PROMPT_TOKENS
        assert held(balancer).reserved_tokens == 0


async def test_where_the_estimate_fits_no_agent_is_asked() -> None:
    async with (
        running_balancer(auth=keys(Limits(tokens_per_minute=150)), limits=unlimited()) as balancer,
        CountingAgent(balancer.management_port, token=SYSTEM) as agent,
    ):
        assert (await chat(balancer, max_tokens=50)).status == 200
        assert agent.asked == []


async def test_a_prompt_that_has_more_tokens_than_were_reserved_does_not_begin() -> None:
    async with (
        running_balancer(auth=keys(Limits(tokens_per_minute=30)), limits=unlimited()) as balancer,
        FakeAgent(
            balancer.management_port,
            token=SYSTEM,
            script=Script(is_held=True, prompt_tokens=31),
        ) as agent,
    ):
        running = asyncio.create_task(chat(balancer, max_tokens=1))
        call = await agent.call()
        answer = await running
        assert (answer.status, answer.error["code"]) == (429, "token_limit_exceeded")
        await eventually(call.is_cancelled.is_set, "the call to be cancelled")
        assert held(balancer).reserved_tokens == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": ["hello", "hello again"]}),
        ("/v1/rerank", {"query": "hello", "documents": ["a", "b"]}),
        ("/v1/completions", {"prompt": ["a", "b"], "n": 2, "max_tokens": 5}),
    ],
)
async def test_tokens_of_every_kind_of_work_count(path: str, body: dict[str, Any]) -> None:
    async with (
        running_balancer(auth=keys(Limits(tokens_per_minute=200)), limits=unlimited()) as balancer,
        FakeAgent(balancer.management_port, token=SYSTEM, model=MODEL),
    ):
        answer = await balancer.post(path, {"model": "demo", **body}, bearer(USER))
        assert answer.status == 200
        spent = answer.json()["usage"]["total_tokens"]
        models = await balancer.post("/tokenize", {"content": "x"}, bearer(USER))
        assert spent > 0
        assert int(models.headers["x-ratelimit-remaining-tokens"]) == 200 - spent
        assert held(balancer).reserved_tokens == 0


class Mute(FakeAgent):
    """Begins with texts, and is never done."""

    async def _take(self, message: Any) -> None:
        if isinstance(message, Request) and isinstance(message.params, Embed | Rerank):
            self.has_begun = True
        else:
            await super()._take(message)

    has_begun = False


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": ["hello " * 10, "hello again"]}),
        ("/v1/rerank", {"query": "hello", "documents": ["hello " * 10, "b"]}),
    ],
)
async def test_texts_that_an_agent_worked_on_count_when_their_client_leaves(
    path: str, body: dict[str, Any]
) -> None:
    limits = Limits(tokens_per_minute=200)
    async with (
        running_balancer(auth=keys(limits), limits=unlimited()) as balancer,
        Mute(balancer.management_port, token=SYSTEM, model=MODEL) as agent,
    ):
        assert isinstance(agent, Mute)
        asking = asyncio.create_task(balancer.post(path, {"model": "demo", **body}, bearer(USER)))
        await eventually(lambda: agent.has_begun, "the agent to begin")
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        await eventually(lambda: not held(balancer).reserved_tokens, "the request to be over")
        assert 20 <= held(balancer).settled_tokens <= 30


async def test_no_minute_ever_has_more_tokens_than_the_limit_under_attack() -> None:
    """200 at once, again and again, against 10 000 tokens a minute."""
    limit = 10_000
    async with (
        running_balancer(
            auth=keys(Limits(tokens_per_minute=limit)),
            limits=unlimited(),
            max_waiting_of_tenant=500,
        ) as balancer,
        FakeAgent(
            balancer.management_port,
            token=SYSTEM,
            slots=64,
            script=Script(pieces=("word ",) * 40),
        ),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):

        async def attack(number: int) -> tuple[int, int]:
            body = {
                "messages": [{"role": "user", "content": "hi"}],
                "max_tokens": 60 + number % 200,
            }
            async with session.post(
                balancer.url + "/v1/chat/completions", json=body, headers=bearer(USER)
            ) as answer:
                said = await answer.json()
                return answer.status, said.get("usage", {}).get("total_tokens", 0)

        settled = 0
        statuses: list[int] = []
        for _ in range(3):
            for status, tokens in await asyncio.gather(*map(attack, range(200))):
                statuses.append(status)
                settled += tokens
                assert status in (200, 429)
        # all of it is younger than a minute
        assert 0.9 * limit < settled <= limit
        assert statuses.count(429) > 100
        assert held(balancer).reserved_tokens == held(balancer).leaked_reservations == 0


async def test_whatever_becomes_of_a_thousand_requests_nothing_stays_reserved() -> None:
    """Cancelled, refused, failed, killed with their agents, or well: all at once."""
    limits = Limits(tokens_per_minute=10**9)
    async with running_balancer(
        auth=keys(limits), limits=unlimited(), max_waiting_of_tenant=2000, queue_timeout_s=1.5
    ) as balancer:
        stop = asyncio.Event()

        async def agents_that_die(name: str) -> None:
            scripts = (
                Script(pieces=("a ",) * 5, gap_s=0.002),
                Script(fail_with=RefusalCode.ENGINE_FAILED, gap_s=0.001),
                Script(refuse_with=RefusalCode.CONTEXT_TOO_LONG),
                Script(pieces=("b ",) * 20, gap_s=0.005),
            )
            for turn in range(10_000):
                if stop.is_set():
                    return
                async with FakeAgent(
                    balancer.management_port,
                    name=f"{name}-{turn}",  # one that failed would be left out for a while
                    token=SYSTEM,
                    slots=100,
                    script=scripts[turn % len(scripts)],
                ):
                    await asyncio.sleep(0.05)

        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
            asyncio.TaskGroup() as tasks,
        ):
            for name in ("one", "two"):
                tasks.create_task(agents_that_die(name))

            async def ask(number: int) -> int:
                body: dict[str, Any] = {
                    "messages": [{"role": "user", "content": "hi"}],
                    "max_tokens": 60,
                    "stream": number % 2 == 0,
                    "n": 3 if number % 8 == 1 else 1,
                }
                headers = bearer(USER)
                if number % 6 == 0:
                    headers["X-Paddler-Resumable"] = "1"
                patience_s = 20.0 if number % 50 == 1 else (0.05, 0.5)[number % 4 > 0]
                timeout = aiohttp.ClientTimeout(total=patience_s)
                try:
                    async with session.post(
                        balancer.url + "/v1/chat/completions",
                        json=body,
                        headers=headers,
                        timeout=timeout,
                    ) as answer:
                        await answer.read()
                        return answer.status
                except (aiohttp.ClientError, TimeoutError, json.JSONDecodeError):
                    return 0

            ends = []
            for start in range(0, 1000, 250):
                ends += await asyncio.gather(*(ask(start + number) for number in range(250)))
            stop.set()
        assert len(ends) == 1000
        assert {0, 200} <= set(ends)
        assert len({*ends} - {0, 200}) > 0
        await eventually(lambda: balancer.is_at_rest, "everything to be over")
        await eventually(lambda: held(balancer).reserved_tokens == 0, "nothing to be reserved")
        assert held(balancer).leaked_reservations == 0


async def test_a_balancer_that_was_stopped_gives_nobody_another_day(tmp_path: Path) -> None:
    facts: dict[str, Any] = {
        "auth": keys(Limits(requests_per_day=2)),
        "limits": unlimited(),
        "data_dir": str(tmp_path),
    }
    statuses = []
    for _ in range(2):
        async with (
            running_balancer(**facts) as balancer,
            FakeAgent(balancer.management_port, token=SYSTEM),
        ):
            statuses += [(await chat(balancer)).status for _ in range(2)]
    assert statuses == [200, 200, 429, 429]


async def test_limits_that_are_reloaded_bind_at_once() -> None:
    async with (
        running_balancer(auth=keys(Limits()), limits=unlimited()) as balancer,
        FakeAgent(balancer.management_port, token=SYSTEM),
    ):
        assert (await chat(balancer)).status == 200
        live = balancer.app.wiring.configuration.live
        live.replace(structs.replace(live.current, auth=keys(Limits(requests_per_minute=1))))
        assert [(await chat(balancer)).status for _ in range(2)] == [200, 429]
