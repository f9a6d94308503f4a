"""Anthropic's Messages API over HTTP, through Anthropic's own client, with scripted agents."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import anthropic
import pytest

from protocol.generation import ReasoningDelta, ToolCallDelta
from protocol.refusals import RefusalCode
from tests.support.fake_agent import FakeAgent, Script
from tests.support.running_balancer import RunningBalancer

HI: list[anthropic.types.MessageParam] = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def client(balancer: RunningBalancer) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        base_url=balancer.url, api_key="none", max_retries=0
    ) as client:
        yield client


async def test_a_message_is_answered_in_one_piece(
    client: anthropic.AsyncAnthropic, agent: FakeAgent
) -> None:
    message = await client.messages.create(
        model="demo", max_tokens=20, messages=HI, system="Be brief."
    )
    (block,) = message.content
    assert block.type == "text"
    assert block.text == "Hello, world"
    assert (message.role, message.stop_reason, message.model) == ("assistant", "end_turn", "demo")
    assert message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0) == 7
    (asked,) = agent.started
    assert [one.role for one in asked.messages or ()] == ["system", "user"]


async def test_beta_versions_and_other_headers_of_the_client_change_nothing(
    client: anthropic.AsyncAnthropic, agent: FakeAgent
) -> None:
    message = await client.beta.messages.create(
        model="demo",
        max_tokens=20,
        messages=[{"role": "user", "content": "hi"}],
        betas=["interleaved-thinking-2025-05-14", "never-heard-of"],
        user_profile_id="up_1",
        workspace_id="w_1",
    )
    assert message.content[0].type == "text"
    counted = await client.beta.messages.count_tokens(
        model="demo", messages=[{"role": "user", "content": "hi"}], betas=["never-heard-of"]
    )
    assert counted.input_tokens > 0
    assert len(agent.started) == 1


async def test_a_stream_is_put_together_by_the_client(
    client: anthropic.AsyncAnthropic, agent: FakeAgent
) -> None:
    agent.script = Script(
        pieces=(
            (ReasoningDelta("hm"),),
            "Let me see.",
            (ToolCallDelta(0, "c1", "look", '{"at":'),),
            (ToolCallDelta(0, arguments='"it"}'),),
        ),
        finish_reason="tool_calls",
    )
    async with client.messages.stream(
        model="demo",
        max_tokens=2000,
        messages=HI,
        thinking={"type": "enabled", "budget_tokens": 1024},
        tools=[{"name": "look", "input_schema": {"type": "object"}}],
    ) as stream:
        texts = [text async for text in stream.text_stream]
        message = await stream.get_final_message()
    assert "".join(texts) == "Let me see."
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
    call = message.content[-1]
    assert call.type == "tool_use"
    assert (call.id, call.name, call.input) == ("c1", "look", {"at": "it"})
    assert message.stop_reason == "tool_use"


async def test_a_stream_s_first_event_counts_cached_tokens_as_its_last_does(
    client: anthropic.AsyncAnthropic,
    agent: FakeAgent,  # noqa: ARG001 (serves)
) -> None:
    counted: list[tuple[int | None, int | None]] = []
    stream = await client.messages.create(model="demo", max_tokens=9, messages=HI, stream=True)
    async for event in stream:
        if event.type == "message_start":
            usage = event.message.usage
            counted.append((usage.input_tokens, usage.cache_read_input_tokens))
        if event.type == "message_delta":
            counted.append((event.usage.input_tokens, event.usage.cache_read_input_tokens))
    assert counted == [(5, 2), (5, 2)]


@pytest.mark.usefixtures("agent")
async def test_good_answers_have_the_id_that_anthropic_s_client_reads(
    client: anthropic.AsyncAnthropic, balancer: RunningBalancer
) -> None:
    raw = await client.messages.with_raw_response.create(model="demo", max_tokens=20, messages=HI)
    ours = raw.headers["X-Paddler-Request-Id"]
    assert ours.startswith("req_")
    message = await raw.parse()
    assert message._request_id == ours
    async with balancer.session.post(
        f"{balancer.url}/v1/messages",
        json={"max_tokens": 5, "messages": HI, "stream": True},
        headers={"X-Paddler-Queue-Updates": "1", "X-Paddler-Resumable": "1"},
    ) as stream:
        headers = stream.headers
        assert headers["request-id"] == headers["X-Paddler-Request-Id"]
        await stream.read()
    url = f"{balancer.url}/v1/streams/{headers['request-id']}"
    async with balancer.session.get(url) as again:
        assert again.headers["request-id"] == headers["request-id"]


async def test_a_mistake_is_told_as_anthropic_tells_it(
    client: anthropic.AsyncAnthropic, agent: FakeAgent
) -> None:
    del agent
    with pytest.raises(anthropic.BadRequestError) as refused:
        await client.messages.create(model="demo", max_tokens=0, messages=HI)
    body = refused.value.body
    assert isinstance(body, dict)
    assert body["type"] == "error"
    assert body["error"]["type"] == "invalid_request_error"
    assert body["request_id"].startswith("req_")
    with pytest.raises(anthropic.NotFoundError):
        await client.messages.create(model="unknown", max_tokens=1, messages=HI)


async def test_a_route_or_method_that_is_not_there_is_told_as_anthropic_tells_it(
    client: anthropic.AsyncAnthropic, balancer: RunningBalancer
) -> None:
    with pytest.raises(anthropic.NotFoundError) as unknown:
        await client.messages.batches.list()
    assert isinstance(unknown.value.body, dict)
    assert unknown.value.body["error"]["type"] == "not_found_error"
    assert unknown.value.request_id == unknown.value.body["request_id"]
    wrong = await balancer.get_json(f"{balancer.url}/v1/messages")
    assert (wrong["type"], wrong["error"]["code"]) == ("error", "method_not_allowed")


async def test_a_failure_after_the_first_token_is_an_event_of_the_stream(
    balancer: RunningBalancer,
) -> None:
    script = Script(fail_with=RefusalCode.ENGINE_FAILED)
    async with FakeAgent(balancer.management_port, script=script):
        answer = await balancer.post(
            "/v1/messages", {"max_tokens": 5, "messages": HI, "stream": True}
        )
    assert answer.status == 200
    last = answer.body.decode().strip().split("\n\n")[-1]
    name, data = last.split("\n")
    assert name == "event: error"
    assert json.loads(data.removeprefix("data: "))["error"]["type"] == "api_error"


@pytest.mark.usefixtures("agent")
async def test_models_are_listed_as_anthropic_s_client_reads_them(
    client: anthropic.AsyncAnthropic,
) -> None:
    (listed,) = [model async for model in client.models.list()]
    shown = await client.models.retrieve("demo")
    for model in (listed, shown):
        assert (model.id, model.display_name, model.type) == ("demo", "demo", "model")
        assert (model.lifecycle, model.max_input_tokens) == ("active", 2048)
        assert model.created_at.tzinfo is not None


async def test_a_coding_assistant_s_request_is_answered_as_it_is_sent(
    client: anthropic.AsyncAnthropic, agent: FakeAgent
) -> None:
    """As one sends it: cache marks, effort, a system turn in the middle, all thinking kept."""
    mark = {"type": "ephemeral"}
    async with client.beta.messages.stream(
        model="demo",
        max_tokens=100,
        betas=["context-management-2025-06-27", "effort-2025-11-24"],
        system=[
            {"type": "text", "text": "You write code.", "cache_control": {"type": "ephemeral"}}
        ],
        messages=[{"role": "user", "content": "hi"}],
        thinking={"type": "adaptive"},
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        output_config={"effort": "high"},
        metadata={"user_id": "a device"},
        extra_body={
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "hi", "cache_control": mark}],
                },
                {"role": "system", "content": [{"type": "text", "text": "The date has changed."}]},
            ]
        },
    ) as stream:
        assert await stream.get_final_text() == "Hello, world"
    asked = agent.started[-1]
    assert [message.role for message in asked.messages or ()] == ["system", "user", "system"]
    assert asked.enable_thinking
