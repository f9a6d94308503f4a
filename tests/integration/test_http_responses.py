"""OpenAI's Responses over HTTP, through OpenAI's own client, with scripted agents."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.responses import Response, ResponseItem, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from balancer.errors import SettingError, StoreFailed
from balancer.policy.identity.principal import Principal
from balancer.storage.memory_responses import MemoryResponses
from balancer.storage.responses import StoredResponse
from protocol.chat import Message
from protocol.generation import ReasoningDelta, TokenLogprob, ToolCallDelta
from protocol.refusals import RefusalCode
from protocol.to_agent import Render
from tests.support.fake_agent import FakeAgent, Script
from tests.support.running_balancer import RunningBalancer, running_balancer

TOOL: Any = {
    "type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False,
}  # fmt: skip
CALLING = Script(
    pieces=(
        (ReasoningDelta("hm"),),
        (ToolCallDelta(0, "c1", "look", '{"at":'),),
        (ToolCallDelta(0, arguments='"it"}'),),
    ),
    finish_reason="tool_calls",
)
_RESPONSE: TypeAdapter[Any] = TypeAdapter(Response)
_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
_ITEM: TypeAdapter[Any] = TypeAdapter(ResponseItem)


@pytest.fixture
async def client(balancer: RunningBalancer) -> AsyncIterator[openai.AsyncOpenAI]:
    async with client_of(balancer) as client:
        yield client


def client_of(balancer: RunningBalancer) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{balancer.url}/v1", api_key="none", max_retries=0)


def contents(messages: tuple[Message, ...] | None) -> list[Any]:
    return [message.content for message in messages or ()]


async def test_a_response_is_answered_in_one_piece(
    client: openai.AsyncOpenAI, agent: FakeAgent
) -> None:
    response = await client.responses.create(
        model="demo", input="hi", instructions="Be brief.", metadata={"a": "b"}
    )
    assert response.output_text == "Hello, world"
    assert (response.status, response.model, response.error) == ("completed", "demo", None)
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.input_tokens_details.cached_tokens) == (
        7,
        2,
    )
    assert (response.instructions, response.metadata) == ("Be brief.", {"a": "b"})
    (asked,) = agent.started
    assert contents(asked.messages) == ["Be brief.", "hi"]


async def test_bodies_and_events_are_strictly_those_of_openais_types(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    agent.script = Script(
        pieces=((ReasoningDelta("hm"),), "Hi", *CALLING.pieces),
        logprobs=((), (TokenLogprob(1, "Hi", -0.1),), (), (), ()),
        finish_reason="length",
    )
    asked = {
        "input": [{"role": "user", "content": "hi"}],
        "include": ["message.output_text.logprobs"],
        "tools": [TOOL],
        "text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}},
        "reasoning": {"effort": "low"},
        "user": "me",
    }
    body = (await balancer.post("/v1/responses", asked)).json()
    _RESPONSE.validate_python(body, strict=True)
    assert {field.alias or name for name, field in Response.model_fields.items()} <= set(body)
    assert body["incomplete_details"] == {"reason": "max_output_tokens"}
    answer = await balancer.post("/responses", {**asked, "stream": True})
    events = events_in(answer.body)
    for number, (name, event) in enumerate(events):
        assert (event["type"], event["sequence_number"]) == (name, number)
        _EVENT.validate_python(event, strict=True)
    last = events[-1][1]["response"]
    assert last["performance"]["cached_prompt_tokens"] == 2
    assert last["_proxy_info"]["request_id"] == answer.headers["X-Paddler-Request-Id"]
    assert [item["type"] for item in last["output"]] == [item["type"] for item in body["output"]]


def events_in(stream: bytes) -> list[tuple[str, Any]]:
    """Names and data of a stream's events."""
    found = []
    for event in stream.decode().strip().split("\n\n"):
        name, data = event.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


async def test_a_stream_is_put_together_by_the_client(
    client: openai.AsyncOpenAI, agent: FakeAgent
) -> None:
    agent.script = Script(pieces=((ReasoningDelta("hm"),), "Let me ", "see.", *CALLING.pieces[1:]))
    async with client.responses.stream(model="demo", input="hi", tools=[TOOL]) as stream:
        texts = [
            event.delta async for event in stream if event.type == "response.output_text.delta"
        ]
        response = await stream.get_final_response()
    assert texts == ["Let me ", "see."]
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call"]
    call = response.output[-1]
    assert call.type == "function_call"
    assert (call.call_id, call.name, call.arguments) == ("c1", "look", '{"at":"it"}')
    again = await client.responses.retrieve(response.id)
    assert again.output_text == response.output_text == "Let me see."


class Place(BaseModel):
    city: str


async def test_a_parsed_answer_has_the_form_that_was_asked_for(
    client: openai.AsyncOpenAI, agent: FakeAgent
) -> None:
    agent.script = Script(pieces=('{"city":', '"Oslo"}'))
    response = await client.responses.parse(model="demo", input="where?", text_format=Place)
    assert response.output_parsed == Place(city="Oslo")
    (asked,) = agent.started
    assert asked.grammar is not None
    assert asked.grammar.kind == "json_schema"


# --- what is stored ---


async def test_a_loop_with_a_tool_goes_on_from_the_stored_response(
    client: openai.AsyncOpenAI, agent: FakeAgent
) -> None:
    agent.script = CALLING
    first = await client.responses.create(
        model="demo", input="Where is it?", instructions="Be brief.", tools=[TOOL]
    )
    agent.script = Script(pieces=("There.",))
    second = await client.responses.create(
        model="demo",
        previous_response_id=first.id,
        input=[{"type": "function_call_output", "call_id": "c1", "output": "on the table"}],
        tools=[TOOL],
    )
    await client.responses.create(model="demo", previous_response_id=second.id, input="Thanks.")
    asked, said, result, answered, thanked = agent.started[-1].messages or ()
    assert contents((asked, result, answered, thanked)) == [
        "Where is it?",
        "on the table",
        "There.",
        "Thanks.",
    ]
    assert (said.reasoning_content, said.tool_calls[0].id) == ("hm", "c1")
    assert second.previous_response_id == first.id


async def test_the_items_of_a_conversation_are_listed_in_pages(
    client: openai.AsyncOpenAI,
    agent: FakeAgent,  # noqa: ARG001 (serves)
) -> None:
    first = await client.responses.create(model="demo", input="one")
    second = await client.responses.create(
        model="demo",
        previous_response_id=first.id,
        input=[{"role": "user", "content": "two"}, {"role": "user", "content": "three"}],
    )
    listed = [
        item async for item in client.responses.input_items.list(second.id, limit=2, order="asc")
    ]
    for item in listed:
        _ITEM.validate_python(item.model_dump(mode="json", exclude_unset=True), strict=True)
    shown = [item.model_dump() for item in listed if item.type == "message"]
    texts = [item["content"][0]["text"] for item in shown]
    assert texts == ["one", "Hello, world", "two", "three"]
    page = await client.responses.input_items.list(second.id, limit=1)
    assert page.data[0].id == listed[-1].id
    assert page.has_more
    last = await client.responses.input_items.list(second.id, after=listed[0].id)
    assert (last.data, last.has_more) == ([], False)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("order=up", "order"),
        ("after=x", "after"),
    ],
)
async def test_a_page_that_cannot_be_is_refused_by_name(
    balancer: RunningBalancer,
    agent: FakeAgent,  # noqa: ARG001 (serves)
    query: str,
    param: str,
) -> None:
    made = (await balancer.post("/v1/responses", {"input": "hi"})).json()["id"]
    url = f"{balancer.url}/v1/responses/{made}/input_items?{query}"
    answer = await balancer.get_json(url)
    assert answer["error"]["param"] == param


async def test_what_is_deleted_or_not_stored_is_not_there(
    client: openai.AsyncOpenAI,
    agent: FakeAgent,  # noqa: ARG001 (serves)
) -> None:
    kept = await client.responses.create(model="demo", input="hi")
    assert (await client.responses.retrieve(kept.id)).output_text == "Hello, world"
    await client.responses.delete(kept.id)
    passed = await client.responses.create(model="demo", input="hi", store=False)
    for gone in (kept.id, passed.id, "resp_never"):
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(gone)
        with pytest.raises(openai.NotFoundError):
            await client.responses.delete(gone)
        with pytest.raises(openai.NotFoundError):
            await client.responses.input_items.list(gone)
        with pytest.raises(openai.NotFoundError):
            await client.responses.cancel(gone)
        with pytest.raises(openai.NotFoundError) as refused:
            await client.responses.create(model="demo", input="x", previous_response_id=gone)
        assert refused.value.param == "previous_response_id"
        assert gone in refused.value.message


async def test_a_conversation_without_its_beginning_is_not_gone_on_with(
    client: openai.AsyncOpenAI,
    agent: FakeAgent,  # noqa: ARG001 (serves)
) -> None:
    first = await client.responses.create(model="demo", input="one")
    second = await client.responses.create(model="demo", input="two", previous_response_id=first.id)
    await client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError, match=first.id):
        await client.responses.create(model="demo", input="x", previous_response_id=second.id)
    listed = await client.responses.input_items.list(second.id)
    assert len(listed.data) == 1


async def test_another_tenant_finds_nothing(
    client: openai.AsyncOpenAI,
    agent: FakeAgent,  # noqa: ARG001 (serves)
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = await client.responses.create(model="demo", input="hi")
    monkeypatch.setattr(
        "balancer.http.gate.open_mode_principal",
        lambda _: Principal(tenant="another", role="admin"),
    )
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(kept.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.create(model="demo", input="x", previous_response_id=kept.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.delete(kept.id)
    monkeypatch.undo()
    assert (await client.responses.retrieve(kept.id)).id == kept.id


async def test_a_response_s_tokens_are_counted_before_it_is_made_with_what_it_continues(
    client: openai.AsyncOpenAI,
    agent: FakeAgent,
) -> None:
    def prompt(*turns: str) -> int:
        return len("".join(turns) + "[assistant]")

    tools: Any = [TOOL]
    counted = await client.responses.input_tokens.count(
        model="demo", input="hi", instructions="Be brief.", tools=tools, tool_choice="auto"
    )
    assert counted.object == "response.input_tokens"
    assert counted.input_tokens == prompt("[system]Be brief.", "[user]hi")
    asked = agent.asked[-1]
    assert isinstance(asked, Render)
    assert [tool.function.name for tool in asked.tools] == ["look"]
    kept = await client.responses.create(model="demo", input="hi")
    counted = await client.responses.input_tokens.count(
        model="demo", input="go on", previous_response_id=kept.id
    )
    assert counted.input_tokens == prompt("[user]hi", f"[assistant]{kept.output_text}[user]go on")
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.input_tokens.count(input="hi", personality="friendly")
    assert refused.value.param == "personality"
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.responses.input_tokens.count(input="hi", previous_response_id="resp_none")
    assert unknown.value.param == "previous_response_id"


async def test_every_method_of_openai_s_client_is_served_or_refused_clearly(
    client: openai.AsyncOpenAI,
    agent: FakeAgent,  # noqa: ARG001 (serves)
) -> None:
    served = {"create", "parse", "stream", "retrieve", "delete", "input_items", "input_tokens"}
    refused = {"cancel", "compact", "connect"}
    views = {"with_raw_response", "with_streaming_response"}
    methods = {name for name in dir(client.responses) if not name.startswith("_")}
    assert methods == served | refused | views
    with pytest.raises(openai.APIStatusError) as compact:
        await client.responses.compact(model="demo", input="hi")
    assert compact.value.status_code == 405
    assert compact.value.code == "method_not_allowed"
    with pytest.raises(openai.APIStatusError) as connect:
        await client.get("/responses", cast_to=object)
    assert connect.value.code == "method_not_allowed"


async def test_nothing_can_be_cancelled_or_streamed_again(
    client: openai.AsyncOpenAI,
    agent: FakeAgent,  # noqa: ARG001 (serves)
) -> None:
    kept = await client.responses.create(model="demo", input="hi")
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.cancel(kept.id)
    assert refused.value.param == "background"
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.retrieve(kept.id, stream=True)
    assert refused.value.param == "stream"


async def test_a_conversation_that_is_too_long_is_refused(
    client: openai.AsyncOpenAI,
    agent: FakeAgent,  # noqa: ARG001 (serves)
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = await client.responses.create(model="demo", input="hi")
    monkeypatch.setattr("balancer.http.responses.keeping.MOST_CONVERSATION_BYTES", 10)
    with pytest.raises(openai.APIStatusError) as refused:
        await client.responses.create(model="demo", input="x", previous_response_id=kept.id)
    assert (refused.value.status_code, refused.value.param) == (413, "previous_response_id")


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_store_that_fails_costs_no_answer(
    client: openai.AsyncOpenAI,
    agent: FakeAgent,  # noqa: ARG001 (serves)
    monkeypatch: pytest.MonkeyPatch,
    is_stream: bool,
) -> None:
    async def fail(self: MemoryResponses, response: StoredResponse) -> bool:
        raise StoreFailed(f"no room for {response.id} in {self}")

    monkeypatch.setattr(MemoryResponses, "put", fail)
    if is_stream:
        async with client.responses.stream(model="demo", input="hi") as stream:
            response: Response = await stream.get_final_response()
    else:
        response = await client.responses.create(model="demo", input="hi")
    assert response.output_text == "Hello, world"
    assert response.to_dict()["store"] is False


@pytest.mark.parametrize("method", ["get", "delete", "conversation"])
async def test_a_store_that_cannot_be_read_is_said_to_be_away_for_a_while(
    balancer: RunningBalancer,
    agent: FakeAgent,  # noqa: ARG001 (serves)
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    async def fail(*_given: object, **_named: object) -> None:
        raise StoreFailed("the file of responses: no such table")

    monkeypatch.setattr(MemoryResponses, method, fail)
    url = balancer.url + "/v1/responses/resp_1"
    if method == "conversation":
        body = {"input": "hi", "previous_response_id": "resp_1"}
        asking = balancer.session.post(balancer.url + "/v1/responses", json=body)
    else:
        asking = balancer.session.request(method, url)
    async with asking as answer:
        error = (await answer.json())["error"]
    assert (answer.status, error["code"]) == (503, "store_unavailable")
    assert int(answer.headers["Retry-After"]) >= 1
    assert "table" not in error["message"]


async def test_stored_responses_outlive_the_balancer(tmp_path: Path) -> None:
    async with (
        running_balancer(data_dir=str(tmp_path)) as balancer,
        FakeAgent(balancer.management_port),
        client_of(balancer) as client,
    ):
        first = await client.responses.create(model="demo", input="one")
    async with (
        running_balancer(data_dir=str(tmp_path)) as balancer,
        FakeAgent(balancer.management_port) as agent,
        client_of(balancer) as client,
    ):
        assert (await client.responses.retrieve(first.id)).output_text == "Hello, world"
        await client.responses.create(model="demo", input="two", previous_response_id=first.id)
        assert contents(agent.started[0].messages) == ["one", "Hello, world", "two"]


async def test_a_directory_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match="data_dir"):
        async with running_balancer(data_dir=str(tmp_path / "file")):
            pass


# --- what goes wrong ---


async def test_a_mistake_is_told_as_openai_tells_it(
    client: openai.AsyncOpenAI, agent: FakeAgent
) -> None:
    del agent
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.create(model="demo", input="hi", truncation="auto")
    assert (refused.value.param, refused.value.code) == ("truncation", "unsupported_parameter")
    with pytest.raises(openai.NotFoundError):
        await client.responses.create(model="unknown", input="hi")


async def test_a_failure_after_the_first_token_ends_the_stream_with_what_there_was(
    balancer: RunningBalancer, client: openai.AsyncOpenAI
) -> None:
    script = Script(fail_with=RefusalCode.ENGINE_FAILED)
    async with FakeAgent(balancer.management_port, script=script):
        stream = await client.responses.create(model="demo", input="hi", stream=True)
        events = [event async for event in stream]
    assert [event.type for event in events[-2:]] == ["error", "response.failed"]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    failed = events[-1]
    assert failed.type == "response.failed"
    assert failed.response.output_text == "Hello, world"
    assert failed.response.error is not None
    assert failed.response.error.code == "server_error"
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(failed.response.id)


async def test_a_resumable_stream_is_taken_up_where_it_was_left(
    balancer: RunningBalancer,
    agent: FakeAgent,  # noqa: ARG001 (serves)
) -> None:
    answer = await balancer.post(
        "/v1/responses", {"input": "hi", "stream": True}, {"X-Paddler-Resumable": "1"}
    )
    request_id = answer.headers["X-Paddler-Request-Id"]
    *_, before, last = answer.body.strip().split(b"\n\n")
    left_at = before.split(b"\n")[0].removeprefix(b"id: ").decode()
    url = f"{balancer.url}/v1/streams/{request_id}"
    async with balancer.session.get(url, headers={"Last-Event-ID": left_at}) as again:
        assert (await again.read()).strip() == last
    assert b"event: response.completed" in last
