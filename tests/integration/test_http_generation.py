"""Generations over HTTP, JSON and streamed, with a scripted agent behind the real balancer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from balancer.http.openai.chat_answer import ChatChunks
from protocol.generation import ReasoningDelta, TokenLogprob, ToolCallDelta, TopLogprob
from protocol.refusals import RefusalCode
from tests.support.fake_agent import FakeAgent, Script, events_of
from tests.support.running_balancer import RunningBalancer, eventually, running_balancer

LOGPROBS = (
    (TokenLogprob(10, "Hello", -0.1, (TopLogprob(10, "Hello", -0.1), TopLogprob(11, "Hi", -2.0))),),
    (TokenLogprob(12, ", ", -0.2, (TopLogprob(12, ", ", -0.2),)),),
    (TokenLogprob(13, "world", -20_000.0),),
)


@pytest.fixture
async def balancer() -> AsyncIterator[RunningBalancer]:
    async with running_balancer() as balancer:
        yield balancer


@pytest.fixture
async def agent(balancer: RunningBalancer) -> AsyncIterator[FakeAgent]:
    async with FakeAgent(balancer.management_port) as agent:
        yield agent


async def test_a_chat_is_answered_as_json_with_usage_and_our_own_fields(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    answer = await balancer.chat(model="demo")
    assert answer.status == 200
    assert answer.headers["X-Paddler-Agent"] == "one"
    assert answer.headers["X-Paddler-Attempts"] == "1"
    body = answer.json()
    queue_ms = float(answer.headers["X-Paddler-Queue-Ms"])
    assert queue_ms == pytest.approx(body["performance"]["queue_time_ms"], abs=0.001)
    assert body["object"] == "chat.completion"
    assert body["model"] == "demo"
    (choice,) = body["choices"]
    assert choice["message"] == {"role": "assistant", "content": "Hello, world", "refusal": None}
    assert choice["finish_reason"] == "stop"
    assert body["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 4,
        "total_tokens": 11,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    assert body["_proxy_info"]["provider"] == "one"
    assert body["_proxy_info"]["request_id"] == answer.headers["X-Paddler-Request-Id"]
    assert set(body["performance"]) == {
        "queue_time_ms",
        "time_to_first_token_ms",
        "inference_time_ms",
        "tokens_per_second",
        "cached_prompt_tokens",
        "gpu_utilization",
        "draft_steps",
        "drafted_tokens",
        "accepted_draft_tokens",
    }
    assert agent.started[0].model == "demo"


async def test_a_streamed_chat_names_the_role_then_tells_the_text_then_why_it_ended(
    balancer: RunningBalancer,
    agent: FakeAgent,  # noqa: ARG001 (serves)
) -> None:
    answer = await balancer.chat(stream=True, stream_options={"include_usage": True})
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["X-Accel-Buffering"] == "no"
    assert answer.headers["X-Frame-Options"] == "DENY"
    *chunks, done = events_of(answer.body)
    assert done == "[DONE]"
    assert {chunk["model"] for chunk in chunks} == {"demo"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    first, *texts, finish, usage = chunks
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    pieces = [chunk["choices"][0]["delta"]["content"] for chunk in texts]
    assert pieces == ["Hello", ", ", "world"]
    assert all(chunk["usage"] is None for chunk in (first, *texts, finish))
    assert finish["choices"][0] == {
        "index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop",
    }  # fmt: skip
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] == 11
    assert usage["_proxy_info"]["provider"] == "one"


async def test_reasoning_and_tool_calls_are_told_apart_from_text(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    agent.script = Script(
        pieces=(
            (ReasoningDelta("Let me "),),
            (ReasoningDelta("think."), ToolCallDelta(0, "call_1", "look")),
            (ToolCallDelta(0, arguments='{"at"'),),
            (ToolCallDelta(0, arguments=': "sky"}'),),
        ),
        finish_reason="tool_calls",
    )
    whole = (await balancer.chat()).json()["choices"][0]
    assert whole["finish_reason"] == "tool_calls"
    assert whole["message"]["content"] is None
    assert whole["message"]["reasoning_content"] == "Let me think."
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "look", "arguments": '{"at": "sky"}'},
    }
    assert whole["message"]["tool_calls"] == [call]

    streamed = await balancer.chat(stream=True)
    deltas = [e["choices"][0]["delta"] for e in events_of(streamed.body) if e != "[DONE]"]
    assert [d["reasoning_content"] for d in deltas if "reasoning_content" in d] == [
        "Let me ",
        "think.",
    ]
    calls = [d["tool_calls"][0] for d in deltas if "tool_calls" in d]
    assert calls[0]["id"] == "call_1"
    assert calls[0]["function"]["name"] == "look"
    assert "".join(c["function"]["arguments"] for c in calls) == '{"at": "sky"}'


@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs_come_for_every_token(
    balancer: RunningBalancer, agent: FakeAgent, stream: bool
) -> None:
    agent.script = Script(logprobs=LOGPROBS)
    answer = await balancer.chat(logprobs=True, top_logprobs=2, stream=stream)
    assert agent.started[0].top_logprobs == 2
    if stream:
        events = [e for e in events_of(answer.body) if e != "[DONE]"]
        choices = [e["choices"][0] for e in events]
        entries = [x for c in choices if c["logprobs"] for x in c["logprobs"]["content"]]
    else:
        entries = answer.json()["choices"][0]["logprobs"]["content"]
    assert [entry["token"] for entry in entries] == ["Hello", ", ", "world"]
    assert entries[0]["bytes"] == list(b"Hello")
    assert [top["token"] for top in entries[0]["top_logprobs"]] == ["Hello", "Hi"]
    assert entries[2]["logprob"] == -9999.0


@pytest.mark.parametrize("prompt", ["Once", ["Once"], [1, 2, 3], [[1, 2, 3]]])
async def test_a_text_completion_takes_text_or_token_ids(
    balancer: RunningBalancer, agent: FakeAgent, prompt: Any
) -> None:
    answer = await balancer.post("/v1/completions", {"prompt": prompt, "suffix": ""})
    body = answer.json()
    assert body["object"] == "text_completion"
    assert body["choices"] == [
        {"text": "Hello, world", "index": 0, "logprobs": None, "finish_reason": "stop"}
    ]
    assert agent.started[0].prompt == ("Once" if "Once" in prompt else (1, 2, 3))


async def test_a_streamed_text_completion_has_logprobs_in_its_own_shape(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    agent.script = Script(logprobs=LOGPROBS)
    answer = await balancer.post(
        "/v1/completions", {"prompt": "Once", "stream": True, "logprobs": 1}
    )
    *chunks, done = events_of(answer.body)
    assert done == "[DONE]"
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "Hello, world"
    shapes = [c["choices"][0]["logprobs"] for c in chunks if c["choices"][0]["logprobs"]]
    assert [shape["text_offset"] for shape in shapes] == [[0], [5], [7]]
    assert shapes[0]["top_logprobs"] == [{"Hello": -0.1, "Hi": -2.0}]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


async def test_the_official_client_reads_answers_and_streams(
    balancer: RunningBalancer,
    agent: FakeAgent,  # noqa: ARG001 (serves)
) -> None:
    async with openai.AsyncOpenAI(base_url=f"{balancer.url}/v1", api_key="none") as client:
        whole = await client.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": "hi"}]
        )
        assert whole.choices[0].message.content == "Hello, world"
        stream = await client.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert "".join(pieces) == "Hello, world"
        assert [model.id async for model in client.models.list()] == ["demo"]
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(
                model="demo", messages=[{"role": "user", "content": "hi"}], n=2
            )
        assert refused.value.code == "unsupported_parameter"
        assert refused.value.param == "n"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_before_the_first_token_is_a_real_status(
    balancer: RunningBalancer, agent: FakeAgent, stream: bool
) -> None:
    agent.script = Script(refuse_with=RefusalCode.CONTEXT_TOO_LONG)
    answer = await balancer.chat(stream=stream)
    assert answer.status == 400
    assert answer.error["code"] == "context_length_exceeded"


async def test_a_failure_after_the_first_token_is_an_event_and_no_done(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    agent.script = Script(pieces=("a", "b"), fail_with=RefusalCode.ENGINE_FAILED)
    answer = await balancer.chat(stream=True)
    assert answer.status == 200
    *_, last = events_of(answer.body)
    assert last["error"]["code"] == "upstream_failed"
    assert last["error"]["request_id"] == answer.headers["X-Paddler-Request-Id"]


async def test_a_fault_of_ours_after_the_first_token_is_an_event_not_a_second_status_line(
    balancer: RunningBalancer,
    agent: FakeAgent,  # noqa: ARG001 (serves)
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> bytes:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(ChatChunks, "closing", fail)
    answer = await balancer.chat(stream=True)
    assert answer.status == 200
    assert b"HTTP/1.1" not in answer.body
    *_, last = events_of(answer.body)
    assert last["error"]["code"] == "internal_error"
    assert "ours" not in last["error"]["message"]


async def test_an_agent_s_death_before_the_first_token_is_502(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    agent.script = Script(is_held=True)
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(balancer.chat(stream=stream)) for stream in (False, True)]
        await eventually(lambda: len(agent.calls) == 2, "both calls run")
        agent.kill()
    for task in asked:
        assert task.result().status == 502
        assert task.result().error["code"] == "agent_lost"


async def test_an_agent_s_death_in_mid_stream_is_an_event_and_no_done(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    agent.script = Script(is_held=True)
    reader, writer = await balancer.open_chat(stream=True)
    await agent.tokens(await agent.call(), "Hello")
    await reader.readuntil(b"Hello")
    agent.kill()
    rest = await reader.readuntil(b"\r\n0\r\n\r\n")
    assert b'"code":"agent_lost"' in rest
    assert b"[DONE]" not in rest
    writer.close()


async def test_a_request_that_cannot_wait_for_headers_gets_them_and_an_error_event() -> None:
    async with running_balancer(
        first_token_header_delay_s=0.05, comment_interval_s=0.1, queue_timeout_s=0.6
    ) as balancer:
        answer = await balancer.chat(stream=True)
        assert answer.status == 200
        body = answer.body
        assert body.startswith(b":\n\n")
        (last,) = events_of(body)
        assert last["error"]["code"] == "queue_timeout"
