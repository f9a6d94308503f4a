"""Generations over HTTP, JSON and streamed, with a scripted agent behind the real balancer."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import openai
import pytest

from balancer.http.openai.chat_answer import ChatChunks
from protocol.generation import ReasoningDelta, TokenLogprob, ToolCallDelta, TopLogprob
from protocol.refusals import RefusalCode
from tests.support.fake_agent import FakeAgent, Script, events_of
from tests.support.running_balancer import (
    RunningBalancer,
    chat_bytes,
    eventually,
    running_balancer,
)

LOGPROBS = (
    (TokenLogprob(10, "Hello", -0.1, (TopLogprob(10, "Hello", -0.1), TopLogprob(11, "Hi", -2.0))),),
    (TokenLogprob(12, ", ", -0.2, (TopLogprob(12, ", ", -0.2),)),),
    (TokenLogprob(13, "world", -20_000.0),),
)


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
                model="demo", messages=[{"role": "user", "content": "hi"}], store=True
            )
        assert refused.value.code == "unsupported_parameter"
        assert refused.value.param == "store"


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


async def test_requests_of_an_agent_that_dies_are_answered_by_the_next(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    agent.script = Script(is_held=True)
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(balancer.chat(stream=stream)) for stream in (False, True)]
        await eventually(lambda: len(agent.calls) == 2, "both calls run")
        agent.kill()
        await eventually(lambda: balancer.metric("paddler_requests_waiting") == 2, "both wait")
        async with FakeAgent(balancer.management_port, name="two"):
            whole, stream = [await task for task in asked]
    assert whole.json()["choices"][0]["message"]["content"] == "Hello, world"
    assert whole.headers["X-Paddler-Attempts"] == "2"
    assert stream.body.rstrip().endswith(b"[DONE]")


async def test_a_stream_goes_on_in_the_middle_and_its_client_sees_one_answer(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    agent.script = Script(is_held=True)
    reader, writer = await balancer.open_chat(stream=True)
    await agent.tokens(await agent.call(), "Hello")
    before = await reader.readuntil(b"Hello")
    async with FakeAgent(balancer.management_port, name="two") as other:
        agent.kill()
        rest = await reader.readuntil(b"\r\n0\r\n\r\n")
        (resumed,) = other.started
    assert resumed.resume is not None
    assert (resumed.resume.token_ids, resumed.resume.emitted_chars) == ((10,), 5)
    assert before.count(b'"role":"assistant"') == 1
    assert b"role" not in rest
    assert b"Hello" not in rest
    assert b'"content":", "' in rest
    assert b"world" in rest
    assert b"[DONE]" in rest
    writer.close()


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"json_schema": {"type": "nothing"}}, "json_schema"),
        ({"json_schema": {}, "response_format": {"type": "text"}}, "json_schema"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"grammar": "root ::= nothing"}, "grammar"),
        ({"grammar": "root ::= nothing", "response_format": {"type": "text"}}, "grammar"),
    ],
)
async def test_a_grammar_that_no_agent_can_use_is_named_as_its_client_named_it(
    balancer: RunningBalancer, agent: FakeAgent, given: dict[str, Any], param: str
) -> None:
    agent.script = Script(refuse_with=RefusalCode.INVALID_GRAMMAR)
    for path, asked in (
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/completions", {"prompt": "hi"}),
    ):
        answer = await balancer.post(path, {**asked, **given})
        assert answer.status == 400
        assert answer.error["param"] == param


@pytest.mark.parametrize(
    ("path", "tool", "param"),
    [
        (
            "/v1/chat/completions",
            {"type": "function", "function": {"name": "f"}},
            "tools[0].function.parameters",
        ),
        ("/v1/messages", {"name": "f"}, "tools[0].input_schema"),
    ],
)
async def test_a_schema_that_no_agent_can_use_is_named_as_its_client_named_it(
    balancer: RunningBalancer, agent: FakeAgent, path: str, tool: dict[str, Any], param: str
) -> None:
    agent.script = Script(refuse_with=RefusalCode.INVALID_GRAMMAR, refuse_about="tools[0]")
    messages = [{"role": "user", "content": "hi"}]
    answer = await balancer.post(path, {"messages": messages, "max_tokens": 9, "tools": [tool]})
    assert answer.status == 400
    assert answer.error["param"] == param


# --- streams that are taken up again ---

RESUMABLE = {"X-Paddler-Resumable": "1"}


def _ids(body: bytes) -> list[str]:
    return [line[4:] for line in body.decode().splitlines() if line.startswith("id: ")]


async def _begun(balancer: RunningBalancer, agent: FakeAgent) -> tuple[str, bytes]:
    """A resumable stream whose client left after the first word; its id and what was read."""
    agent.script = Script(is_held=True)
    reader, writer = await asyncio.open_connection("127.0.0.1", balancer.inference_port)
    request = chat_bytes(stream=True)
    writer.write(request.replace(b"\r\n", b"\r\nX-Paddler-Resumable: 1\r\n", 1))
    await agent.tokens(await agent.call(), "Hello")
    head = await reader.readuntil(b"\r\n\r\n")
    body = await reader.readuntil(b"Hello")
    body += await reader.readuntil(b"\n\n")
    writer.close()
    request_id = head.partition(b"X-Paddler-Request-Id: ")[2].split(b"\r\n")[0].decode()
    return request_id, body


@pytest.mark.parametrize(
    ("value", "is_resumable"), [("true", True), ("yes", True), ("0", False), ("False", False)]
)
@pytest.mark.usefixtures("agent")
async def test_a_stream_is_resumable_unless_its_header_says_no(
    balancer: RunningBalancer, value: str, is_resumable: bool
) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    headers = {"X-Paddler-Resumable": value}
    answer = await balancer.post("/v1/chat/completions", body, headers)
    assert answer.status == 200
    assert bool(_ids(answer.body)) == is_resumable


async def test_a_stream_whose_client_left_is_taken_up_where_it_stood_each_event_once(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    request_id, body = await _begun(balancer, agent)
    call = await agent.call()
    await agent.tokens(call, ", ")
    seen = _ids(body)
    url = f"{balancer.url}/v1/streams/{request_id}"
    async with balancer.session.get(url, headers={"Last-Event-ID": seen[-1]}) as answer:
        assert answer.status == 200
        assert answer.headers.getall("X-Paddler-Request-Id") == [request_id]
        await agent.tokens(call, "world")
        await agent.finish(call)
        rest = await answer.read()
    everything = seen + _ids(rest)
    assert everything == [f"{request_id}:{number}" for number in range(len(everything))]
    assert rest.index(b'"content":", "') < rest.index(b'"content":"world"')
    assert rest.rstrip().endswith(b"[DONE]")
    assert not call.is_cancelled.is_set()


async def test_after_its_end_a_stream_can_be_read_again_from_anywhere(
    balancer: RunningBalancer,
    agent: FakeAgent,  # noqa: ARG001 (serves)
) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    whole = await balancer.post("/v1/chat/completions", body, headers=RESUMABLE)
    request_id = whole.headers["X-Paddler-Request-Id"]
    url = f"{balancer.url}/v1/streams/{request_id}"
    async with balancer.session.get(url) as answer:
        assert await answer.read() == whole.body
    for number, event_id in enumerate(_ids(whole.body)):
        async with balancer.session.get(url, headers={"Last-Event-ID": event_id}) as answer:
            assert _ids(await answer.read()) == _ids(whole.body)[number + 1 :]


async def test_a_stream_is_nobody_else_s(balancer: RunningBalancer, agent: FakeAgent) -> None:
    request_id, _ = await _begun(balancer, agent)
    connector = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
    url = f"{balancer.url}/v1/streams/{request_id}"
    async with aiohttp.ClientSession(connector=connector) as other, other.get(url) as answer:
        assert answer.status == 404
    await agent.finish(await agent.call())


@pytest.mark.parametrize("last", ["", "x", "req_0:0", "{id}:99", "{id}:-1", "{id}:1e1"])
async def test_an_event_id_of_another_stream_is_named(
    balancer: RunningBalancer,
    agent: FakeAgent,  # noqa: ARG001 (serves)
    last: str,
) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    whole = await balancer.post("/v1/chat/completions", body, headers=RESUMABLE)
    request_id = whole.headers["X-Paddler-Request-Id"]
    url = f"{balancer.url}/v1/streams/{request_id}"
    headers = {"Last-Event-ID": last.format(id=request_id)}
    async with balancer.session.get(url, headers=headers) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]["param"] == "Last-Event-ID"


async def test_streams_that_nobody_asked_to_keep_are_not_kept(
    balancer: RunningBalancer,
    agent: FakeAgent,  # noqa: ARG001 (serves)
) -> None:
    whole = await balancer.chat(stream=True)
    assert _ids(whole.body) == []
    url = f"{balancer.url}/v1/streams/{whole.headers['X-Paddler-Request-Id']}"
    async with balancer.session.get(url) as answer:
        assert answer.status == 404


async def test_a_stream_that_nobody_takes_up_is_cancelled_after_a_while() -> None:
    async with (
        running_balancer(stream_unread_s=0.2) as balancer,
        FakeAgent(balancer.management_port) as agent,
    ):
        await _begun(balancer, agent)
        await eventually(lambda: balancer.is_at_rest, "the generation is cancelled")
        assert len(balancer.app.wiring.replays) == 0


async def test_past_the_bound_the_oldest_streams_cannot_be_taken_up() -> None:
    async with (
        running_balancer(stream_replay_bytes=2500) as balancer,
        FakeAgent(balancer.management_port),
    ):
        body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
        answers = [
            await balancer.post("/v1/chat/completions", body, headers=RESUMABLE) for _ in range(4)
        ]
        statuses = []
        for answer in answers:
            url = f"{balancer.url}/v1/streams/{answer.headers['X-Paddler-Request-Id']}"
            async with balancer.session.get(url) as again:
                statuses.append(again.status)
        assert statuses[0] == 404
        assert statuses[-1] == 200
        assert balancer.app.wiring.replays.size_bytes <= 2500


async def test_an_error_before_the_first_event_of_a_resumable_stream_is_a_real_status(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    agent.script = Script(refuse_with=RefusalCode.CONTEXT_TOO_LONG)
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    answer = await balancer.post("/v1/chat/completions", body, headers=RESUMABLE)
    assert answer.status == 400
    url = f"{balancer.url}/v1/streams/{answer.headers['X-Paddler-Request-Id']}"
    async with balancer.session.get(url) as again:
        assert again.status == 400
