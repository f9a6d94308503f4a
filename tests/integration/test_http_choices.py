"""Several choices over HTTP: interleaved streams, one usage, one body, with scripted agents."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from balancer.http.answering import MOST_CHOICE_BYTES
from balancer.policy.choices import seed_of_choice
from protocol.generation import TokenLogprob
from protocol.refusals import RefusalCode
from tests.support.fake_agent import Call, FakeAgent, Script, events_of
from tests.support.running_balancer import (
    Answer,
    RunningBalancer,
    eventually,
)

WORDS = ("Hello", ", ", "world")


def texts_of(answer: Answer) -> dict[int, str]:
    """The text of each choice of a streamed chat."""
    texts: dict[int, str] = {}
    for event in events_of(answer.body):
        for choice in [] if event == "[DONE]" else event["choices"]:
            text = choice["delta"].get("content") or ""
            texts[choice["index"]] = texts.get(choice["index"], "") + text
    return texts


async def held(agent: FakeAgent, count: int) -> list[Call]:
    """So many calls that run."""
    await eventually(lambda: len(agent.calls) >= count, "the calls run")
    return list(agent.calls.values())


async def test_a_chat_for_three_choices_is_one_answer_that_counts_its_prompt_once(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    answer = await balancer.chat(n=3, seed=7)
    body = answer.json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert {choice["message"]["content"] for choice in body["choices"]} == {"Hello, world"}
    usage = body["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (
        7,
        12,
        19,
    )
    assert usage["prompt_tokens_details"] == {"cached_tokens": 2}
    assert [call.seed for call in agent.started] == [seed_of_choice(7, i) for i in range(3)]
    assert answer.headers["X-Paddler-Agent"] == "one"
    assert answer.headers["X-Paddler-Attempts"] == "1"


async def test_without_a_seed_choices_differ_all_the_same(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    await balancer.chat(n=4)
    assert len({call.seed for call in agent.started}) == 4


@pytest.mark.parametrize("include_usage", [False, True])
async def test_a_stream_of_choices_interleaves_and_ends_once(
    balancer: RunningBalancer, agent: FakeAgent, include_usage: bool
) -> None:
    agent.script = Script(is_held=True)
    options = {"include_usage": include_usage}
    task = asyncio.ensure_future(balancer.chat(n=2, stream=True, stream_options=options))
    first, second = await held(agent, 2)
    for word in WORDS:
        await agent.tokens(first, word)
        await agent.tokens(second, word.upper())
    await agent.finish(second)
    await agent.tokens(first, "!")
    await agent.finish(first)
    *chunks, done = events_of((await task).body)
    assert done == "[DONE]"
    order = [choice["index"] for chunk in chunks for choice in chunk["choices"]]
    # roles with the first words; where the finish of the second goes is a matter of ticks
    assert order[:8] == [0, 0, 1, 1, 0, 1, 0, 1]
    assert sorted(order[8:]) == [0, 0, 1]
    roles = [
        choice["index"]
        for chunk in chunks
        for choice in chunk["choices"]
        if "role" in choice["delta"]
    ]
    assert roles == [0, 1]
    reasons = [
        (choice["index"], choice["finish_reason"])
        for chunk in chunks
        for choice in chunk["choices"]
        if choice["finish_reason"]
    ]
    assert reasons == [(1, "stop"), (0, "stop")]
    assert len({chunk["id"] for chunk in chunks}) == 1
    with_usage = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
    assert [usage["completion_tokens"] for usage in with_usage] == ([9] if include_usage else [])
    assert [chunk for chunk in chunks if "_proxy_info" in chunk] == [chunks[-1]]


@pytest.mark.parametrize("stream", [False, True])
async def test_completions_have_choices_with_logprobs_of_their_own(
    balancer: RunningBalancer, agent: FakeAgent, stream: bool
) -> None:
    logprobs = tuple((TokenLogprob(i, word, -0.5),) for i, word in enumerate(WORDS))
    agent.script = Script(logprobs=logprobs)
    body = {"prompt": "hi", "n": 2, "best_of": 2, "logprobs": 0, "stream": stream}
    answer = await balancer.post("/v1/completions", body)
    events = [e for e in events_of(answer.body) if e != "[DONE]"] if stream else [answer.json()]
    found: dict[int, tuple[str, list[int]]] = {}
    for choice in (choice for event in events for choice in event["choices"]):
        text, offsets = found.get(choice["index"], ("", []))
        shaped = choice["logprobs"] or {"text_offset": []}
        found[choice["index"]] = (text + choice["text"], offsets + shaped["text_offset"])
    assert found == {0: ("Hello, world", [0, 5, 7]), 1: ("Hello, world", [0, 5, 7])}


async def test_openai_s_own_client_reads_choices(
    balancer: RunningBalancer,
    agent: FakeAgent,  # noqa: ARG001 (serves)
) -> None:
    messages: Any = [{"role": "user", "content": "hi"}]
    async with openai.AsyncOpenAI(base_url=f"{balancer.url}/v1", api_key="none") as client:
        whole = await client.chat.completions.create(model="demo", messages=messages, n=3)
        assert [choice.message.content for choice in whole.choices] == ["Hello, world"] * 3
        stream = await client.chat.completions.create(
            model="demo", messages=messages, n=3, stream=True
        )
        texts = ["", "", ""]
        async for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
        assert texts == ["Hello, world"] * 3


async def test_a_choice_that_fails_before_the_first_token_is_a_real_status(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    agent.script = Script(refuse_with=RefusalCode.CONTEXT_TOO_LONG)
    for stream in (False, True):
        answer = await balancer.chat(n=3, stream=stream)
        assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
    await eventually(lambda: balancer.is_at_rest, "every slot is free")


async def test_a_choice_that_fails_later_ends_the_stream_with_its_error(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    agent.script = Script(is_held=True)
    task = asyncio.ensure_future(balancer.chat(n=2, stream=True))
    first, second = await held(agent, 2)
    await agent.tokens(first, "a")
    await agent.fail(second, RefusalCode.ENGINE_FAILED)
    answer = await task
    *_, last = events_of(answer.body)
    assert (answer.status, last["error"]["code"]) == (200, "upstream_failed")
    await eventually(lambda: balancer.is_at_rest, "the other choice is cancelled")


async def test_a_client_that_leaves_ends_every_choice(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    agent.script = Script(is_held=True)
    _, writer = await balancer.open_chat(n=4, stream=True)
    await held(agent, 4)
    writer.close()
    await eventually(lambda: balancer.is_at_rest, "every slot is free")
    assert not agent.calls


async def test_an_agent_that_vanishes_under_choices_is_not_noticed(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    agent.script = Script(is_held=True)
    task = asyncio.ensure_future(balancer.chat(n=3, stream=True))
    for call in await held(agent, 3):
        await agent.tokens(call, WORDS[0])
    await eventually(
        lambda: all(row.completion_tokens for row in balancer.app.wiring.dispatcher.requests()),
        "the first words arrived",
    )
    agent.kill()
    async with FakeAgent(balancer.management_port, name="two"):
        answer = await task
    assert texts_of(answer) == dict.fromkeys(range(3), "Hello, world")
    *_, last, _ = events_of(answer.body)
    assert last["_proxy_info"]["attempt_number"] == 2


async def test_a_resumable_stream_of_choices_is_taken_up_where_it_was(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    agent.script = Script(is_held=True)
    body = {"messages": [{"role": "user", "content": "hi"}], "n": 2, "stream": True}
    headers = {"X-Paddler-Resumable": "1"}
    task = asyncio.ensure_future(balancer.post("/v1/chat/completions", body, headers))
    calls = await held(agent, 2)
    for word in WORDS:
        for call in calls:
            await agent.tokens(call, word)
    for call in calls:
        await agent.finish(call)
    answer = await task
    request_id = answer.headers["X-Paddler-Request-Id"]
    events = answer.body.split(b"\n\n")[:-1]
    url = f"{balancer.url}/v1/streams/{request_id}"
    seen = events[3].decode().splitlines()[0].removeprefix("id: ")
    async with balancer.session.get(url, headers={"Last-Event-ID": seen}) as rest:
        assert (await rest.read()).split(b"\n\n")[:-1] == events[4:]


async def test_operators_see_choices_by_index_and_a_route_for_each(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    agent.script = Script(is_held=True)
    task = asyncio.ensure_future(balancer.chat(n=2))
    await held(agent, 2)
    rows = (await balancer.get_json(f"{balancer.management_url}/requests"))["data"]
    assert [row["choice"] for row in rows] == [0, 1]
    (request_id,) = {row["id"] for row in rows}
    url = f"{balancer.management_url}/requests/{request_id}"
    route = await balancer.get_json(f"{url}/route")
    assert (route["choice"], route["decisions"][0]["chosen"]) == (0, "one")
    assert [other["choice"] for other in route["other_choices"]] == [1]
    async with balancer.session.delete(url) as answer:
        assert answer.status == 200
    assert (await task).error["code"] == "request_cancelled"
    await eventually(lambda: balancer.is_at_rest, "both calls are cancelled")


async def test_many_choices_of_a_large_body_are_refused_with_what_would_do(
    balancer: RunningBalancer,
    agent: FakeAgent,  # noqa: ARG001 (serves)
) -> None:
    size_bytes = MOST_CHOICE_BYTES // 128 + 1
    refused = await balancer.chat("x" * size_bytes, n=128)
    assert (refused.status, refused.error["param"]) == (413, "n")
    assert "at most 127" in refused.error["message"]


async def test_choices_with_log_probabilities_are_one_body_with_those_of_each(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    logprobs = tuple((TokenLogprob(i, word, -0.5),) for i, word in enumerate(WORDS))
    agent.script = Script(logprobs=logprobs)
    body = (await balancer.chat(n=2, logprobs=True)).json()
    pieces = [
        [entry["token"] for entry in choice["logprobs"]["content"]] for choice in body["choices"]
    ]
    assert pieces == [list(WORDS)] * 2


async def test_more_log_probabilities_than_are_held_are_refused_unless_streamed(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    refused = await balancer.chat(n=7, logprobs=True, top_logprobs=20)
    assert (refused.status, refused.error["param"]) == (400, "n")
    assert "`n` times (`top_logprobs` + 1) is 147" in refused.error["message"]
    body = {"prompt": "hi", "n": 65, "logprobs": 1}
    refused = await balancer.post("/v1/completions", body)
    assert (refused.status, refused.error["details"]["logprobs"]) == (400, 1)
    assert not agent.started
    assert (await balancer.chat(n=6, logprobs=True, top_logprobs=20)).status == 200
    streamed = await balancer.chat(n=7, logprobs=True, top_logprobs=20, stream=True)
    assert streamed.status == 200
