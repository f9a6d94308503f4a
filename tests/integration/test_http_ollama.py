"""Ollama's API over HTTP, through Ollama's own client, with scripted agents."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import ollama
import pytest
from msgspec import structs

from protocol.chat import ImagePart, TextPart
from protocol.generation import (
    ReasoningDelta,
    StepDelta,
    TokenLogprob,
    ToolCallDelta,
    TopLogprob,
)
from protocol.refusals import RefusalCode
from tests.support.fake_agent import FakeAgent, Script
from tests.support.memory_agent import MemoryAgent
from tests.support.running_balancer import (
    Answer,
    RunningBalancer,
    eventually,
    running_balancer,
)

HI = [{"role": "user", "content": "hi"}]
DURATIONS = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")
PNG = b"\x89PNG and so on"
THINKS_SPEAKS_AND_CALLS: tuple[StepDelta, ...] = (
    (ReasoningDelta("h"),),
    (ReasoningDelta("m"),),
    "Let me",
    " see.",
    (ToolCallDelta(0, "c1", "look", '{"at":'),),
    (ToolCallDelta(0, arguments='"it"}'),),
)


@pytest.fixture
async def client(balancer: RunningBalancer) -> AsyncIterator[ollama.AsyncClient]:
    async with ollama.AsyncClient(host=balancer.url) as client:
        yield client


def lines_of(answer: Answer) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.body.splitlines()]


async def test_a_chat_is_answered_in_one_piece(
    client: ollama.AsyncClient, agent: FakeAgent
) -> None:
    answer = await client.chat(
        model="demo:latest",
        messages=[{"role": "system", "content": "Be brief."}, *HI],
        options={"temperature": 0.5, "num_predict": 9, "num_ctx": 4096},
        keep_alive="5m",
    )
    assert (answer.message.role, answer.message.content) == ("assistant", "Hello, world")
    assert (answer.model, answer.done, answer.done_reason) == ("demo:latest", True, "stop")
    assert (answer.prompt_eval_count, answer.eval_count) == (7, 4)
    assert all(isinstance(answer[name], int) for name in DURATIONS)
    (asked,) = agent.started
    assert (asked.model, asked.temperature, asked.top_k, asked.max_tokens) == ("demo", 0.5, 40, 9)
    assert [one.role for one in asked.messages or ()] == ["system", "user"]


async def test_a_stream_is_put_together_by_the_client(
    client: ollama.AsyncClient, agent: FakeAgent
) -> None:
    agent.script = Script(
        pieces=THINKS_SPEAKS_AND_CALLS,
        finish_reason="tool_calls",
    )

    def look(at: str) -> str:
        """Look at something.

        Args:
            at: What to look at.
        """
        return at

    stream = await client.chat(model="demo", messages=HI, tools=[look], think=True, stream=True)
    parts = [part async for part in stream]
    assert [part.message.thinking for part in parts if part.message.thinking] == ["h", "m"]
    assert "".join(part.message.content or "" for part in parts) == "Let me see."
    (call,) = [call for part in parts for call in part.message.tool_calls or ()]
    assert (call.function.name, call.function.arguments) == ("look", {"at": "it"})
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1].done_reason == "stop"
    (asked,) = agent.started
    assert asked.enable_thinking
    assert [tool.function.name for tool in asked.tools] == ["look"]
    assert asked.tools[0].function.parameters["required"] == ["at"]


async def test_the_client_reads_log_probabilities_whole_and_as_a_stream(
    client: ollama.AsyncClient, agent: FakeAgent
) -> None:
    top = (TopLogprob(1, "x", -0.5), TopLogprob(2, "y", -1.0))
    entries = tuple((TokenLogprob(1, piece, -0.5, top),) for piece in ("Hello", ", ", "world"))
    agent.script = Script(logprobs=entries)
    whole = await client.chat(model="demo", messages=HI, logprobs=True, top_logprobs=2)
    assert [one.token for one in whole.logprobs or ()] == ["Hello", ", ", "world"]
    assert whole.logprobs is not None
    assert [one.logprob for one in whole.logprobs[0].top_logprobs or ()] == [-0.5, -1.0]
    lines = await client.generate(model="demo", prompt="hi", logprobs=True, stream=True)
    streamed = [line async for line in lines]
    told = [one.token for line in streamed for one in line.logprobs or ()]
    assert told == ["Hello", ", ", "world"]
    assert "".join(line.response or "" for line in streamed) == "Hello, world"
    assert [call.top_logprobs for call in agent.started] == [2, 0]


async def test_a_prompt_is_answered_whole_and_as_a_stream(
    client: ollama.AsyncClient, agent: FakeAgent
) -> None:
    whole = await client.generate(
        model="demo", prompt="hi", system="Be brief.", images=[PNG], format="json"
    )
    assert (whole.response, whole.done_reason) == ("Hello, world", "stop")
    stream = await client.generate(model="demo", prompt="hi", suffix="end", raw=True, stream=True)
    parts = [part async for part in stream]
    assert [part.response for part in parts] == ["Hello", ", ", "world", ""]
    chat, text = agent.started
    system, user = chat.messages or ()
    assert (system.role, system.content) == ("system", "Be brief.")
    assert user.content == (ImagePart(data=PNG), TextPart(text="hi"))
    assert chat.grammar is not None
    assert (text.prompt, text.suffix, text.messages) == ("hi", "end", None)


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
async def test_who_does_not_say_otherwise_gets_lines_of_json(
    balancer: RunningBalancer,
    agent: FakeAgent,  # noqa: ARG001 (serves)
    path: str,
) -> None:
    answer = await balancer.post(path, {"messages": HI, "prompt": "hi"})
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert answer.headers["X-Paddler-Agent"] == "one"
    assert [line["done"] for line in lines_of(answer)] == [False, False, False, True]
    assert {line["model"] for line in lines_of(answer)} == {"demo"}
    whole = await balancer.post(path, {"messages": HI, "prompt": "hi", "stream": False})
    assert whole.headers["Content-Type"].startswith("application/json")
    assert whole.json()["done"]


async def test_nothing_is_put_into_a_silent_stream_and_nothing_can_be_taken_up_again() -> None:
    async with (
        running_balancer(comment_interval_s=0.01) as balancer,
        FakeAgent(balancer.management_port, script=Script(is_held=True)) as agent,
    ):
        headers = {"X-Paddler-Resumable": "1", "X-Paddler-Queue-Updates": "1"}
        post = balancer.post("/api/chat", {"messages": HI}, headers)
        task = asyncio.ensure_future(post)
        call = await agent.call()
        await agent.tokens(call, "Hello")
        before = balancer.app.wiring.roster.version
        await eventually(lambda: balancer.app.wiring.roster.version > before, "a heartbeat came")
        await agent.finish(call)
        answer = await task
        assert [line["message"]["content"] for line in lines_of(answer)] == ["Hello", ""]
        request_id = answer.headers["X-Paddler-Request-Id"]
        url = f"{balancer.url}/v1/streams/{request_id}"
        assert (await balancer.get_json(url))["error"]["code"] == "resource_not_found"


@pytest.mark.parametrize("told", range(len(THINKS_SPEAKS_AND_CALLS)))
async def test_wherever_an_agent_dies_the_client_sees_one_answer(
    balancer: RunningBalancer, agent: FakeAgent, told: int
) -> None:
    """In the middle of thoughts, of text, of a call."""
    pieces = THINKS_SPEAKS_AND_CALLS
    agent.script = Script(is_held=True)
    asked = asyncio.ensure_future(balancer.post("/api/chat", {"messages": HI}))
    call = await agent.call()
    for piece in pieces[:told]:
        await agent.tokens(call, piece)
    dispatcher = balancer.app.wiring.dispatcher
    await eventually(
        lambda: [row.completion_tokens for row in dispatcher.requests()] == [told], "they came"
    )
    agent.kill()
    script = Script(pieces=pieces, finish_reason="tool_calls")
    async with FakeAgent(balancer.management_port, name="two", script=script) as other:
        lines = lines_of(await asked)
    (taken_over,) = other.started
    assert len(taken_over.resume.token_ids if taken_over.resume else ()) == told
    messages = [line["message"] for line in lines]
    assert "".join(one.get("thinking", "") for one in messages) == "hm"
    assert "".join(one["content"] for one in messages) == "Let me see."
    assert [one["tool_calls"] for one in messages if "tool_calls" in one] == [
        [{"function": {"name": "look", "arguments": {"at": "it"}}}]
    ]
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]


async def test_a_mistake_is_told_as_ollama_tells_it(
    client: ollama.AsyncClient,
    balancer: RunningBalancer,
    agent: FakeAgent,  # noqa: ARG001 (serves)
) -> None:
    with pytest.raises(ollama.ResponseError, match=r"options\.temperature") as refused:
        await client.chat(model="demo", messages=HI, options={"temperature": -9})
    assert refused.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match="nobody") as unknown:
        await client.chat(model="nobody:latest", messages=HI)
    assert unknown.value.status_code == 404
    answer = await balancer.post("/api/generate", {"prompt": "hi", "template": "{{ .Prompt }}"})
    body = answer.json()
    assert isinstance(body["error"], str)
    assert body["detail"]["param"] == "template"
    assert body["detail"]["message"] == body["error"]


async def test_a_route_or_method_that_is_not_there_is_told_as_ollama_tells_it(
    client: ollama.AsyncClient, balancer: RunningBalancer
) -> None:
    with pytest.raises(ollama.ResponseError, match="there is no '/api/pull'") as unknown:
        await client.pull("demo")
    assert unknown.value.status_code == 404
    wrong = await balancer.get_json(f"{balancer.url}/api/chat")
    assert wrong["error"] == wrong["detail"]["message"]
    assert wrong["detail"]["code"] == "method_not_allowed"


@pytest.mark.parametrize("name", ["chat", "generate", "embed", "embeddings", "show"])
async def test_what_is_no_request_is_refused_in_ollama_s_shape(
    balancer: RunningBalancer, name: str
) -> None:
    for body, code in (
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"[]", "invalid_type"),
        (b'{"model":"\\ud800"}', "invalid_json"),
        (b'{"model":"\xff"}', "invalid_json"),
        (b'{"model":NaN}', "invalid_json"),
        (b"[" * 1000, "invalid_json"),
        (b'{"model":7}', "invalid_type"),
    ):
        answer = await balancer.post(f"/api/{name}", body)
        assert (answer.status, answer.json()["detail"]["code"]) == (400, code), body
        assert answer.error == answer.json()["detail"]["message"]


async def test_empty_names_of_ollama_s_client_in_go_are_absent(
    balancer: RunningBalancer,
    agent: FakeAgent,  # noqa: ARG001 (serves)
) -> None:
    """It sends every field that it knows."""
    empty: dict[str, Any] = {"system": "", "template": "", "options": None}
    shown = {**empty, "verbose": False}
    for names in ({"model": "demo", "name": ""}, {"model": "", "name": "demo"}):
        answer = await balancer.post("/api/show", {**shown, **names})
        assert (answer.status, answer.json()["details"]["format"]) == (200, "gguf")
    nameless = await balancer.post("/api/show", {**shown, "model": "", "name": ""})
    assert (nameless.status, nameless.json()["detail"]["param"]) == (400, "model")
    for path, what in (("chat", {"messages": HI}), ("generate", {"prompt": "hi", "suffix": ""})):
        body = {"model": "", "stream": False, **empty, **what}
        answer = await balancer.post(f"/api/{path}", body)
        assert (answer.status, answer.json()["model"]) == (200, "demo")


async def test_who_is_refused_for_want_of_room_is_told_when_to_ask_again() -> None:
    async with running_balancer(queue_timeout_s=0) as balancer:
        answer = await balancer.post("/api/chat", {"messages": HI})
        assert (answer.status, answer.json()["detail"]["code"]) == (503, "no_agents")
        assert int(answer.headers["Retry-After"]) >= 1


async def test_a_failure_after_the_first_token_is_the_stream_s_last_line(
    balancer: RunningBalancer, client: ollama.AsyncClient
) -> None:
    script = Script(fail_with=RefusalCode.ENGINE_FAILED)
    async with FakeAgent(balancer.management_port, script=script):
        answer = await balancer.post("/api/chat", {"messages": HI})
        assert answer.status == 200
        *text, last = lines_of(answer)
        assert "".join(line["message"]["content"] for line in text) == "Hello, world"
        assert isinstance(last["error"], str)
        assert last["detail"]["request_id"] == answer.headers["X-Paddler-Request-Id"]
        stream = await client.chat(model="demo", messages=HI, stream=True)
        with pytest.raises(ollama.ResponseError):
            _ = [part async for part in stream]


async def test_a_grammar_that_no_agent_can_use_is_named_as_its_client_named_it(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    agent.script = Script(refuse_with=RefusalCode.INVALID_GRAMMAR)
    answer = await balancer.post("/api/chat", {"messages": HI, "format": {"type": "nothing"}})
    assert (answer.status, answer.json()["detail"]["param"]) == (400, "format")


async def test_a_request_without_a_prompt_finds_the_model_loaded(
    client: ollama.AsyncClient, balancer: RunningBalancer, agent: FakeAgent
) -> None:
    loaded = await client.generate(model="demo")
    assert (loaded.response, loaded.done_reason) == ("", "load")
    chat = await client.chat(model="demo:latest", messages=[])
    assert (chat.message.content, chat.done_reason) == ("", "load")
    assert agent.started == []
    answer = await balancer.post("/api/generate", {"model": "nobody"})
    assert (answer.status, answer.json()["detail"]["code"]) == (404, "model_not_found")


async def test_what_is_served_is_listed_shown_and_in_memory(
    client: ollama.AsyncClient,
    balancer: RunningBalancer,
    agent: FakeAgent,  # noqa: ARG001 (serves)
) -> None:
    (listed,) = (await client.list()).models
    assert listed.model == "demo:latest"
    assert listed.details is not None
    assert listed.details.format == "gguf"
    (running,) = (await client.ps()).models
    assert (running.model, running.digest) == (listed.model, listed.digest)
    assert running.context_length == 2048
    body = {"name": "demo:latest", "verbose": True}
    by_name = (await balancer.post("/api/show", body)).json()
    shown = await client.show(listed.model)
    assert by_name["capabilities"] == shown.capabilities
    assert shown.capabilities == ["completion", "tools"]
    assert shown.modelinfo is not None
    assert shown.modelinfo["general.parameter_count"] == 0
    assert (shown.parameters or "").split() == ["num_ctx", "2048"]
    with pytest.raises(ollama.ResponseError):
        await client.show("nobody")
    version = await balancer.get_json(f"{balancer.url}/api/version")
    assert [int(number) for number in version["version"].split(".")] > [0, 9]


async def test_ollama_s_command_line_finds_an_ollama(balancer: RunningBalancer) -> None:
    async with balancer.session.head(f"{balancer.url}/") as answer:
        assert answer.status == 200
    async with balancer.session.get(f"{balancer.url}/") as answer:
        assert await answer.text() == "Ollama is running"
        assert answer.headers["X-Frame-Options"] == "DENY"


async def test_a_model_without_a_chat_template_is_given_the_prompt_as_it_is() -> None:
    async with running_balancer(heartbeat_interval_s=60.0) as balancer:
        agent = MemoryAgent(balancer.app.wiring.roster)
        assert agent.model is not None
        agent.model = structs.replace(
            agent.model, has_chat_template=False, parameters=8_030_000_000, architecture="llama"
        )
        agent.register()
        post = balancer.post("/api/generate", {"model": "demo", "prompt": "hi", "stream": False})
        task = asyncio.ensure_future(post)
        await eventually(lambda: agent.unanswered, "the agent is asked")
        (call,) = agent.answer()
        agent.step({call: "ho"})
        agent.finish(call)
        assert (await task).json()["response"] == "ho"
        assert (agent.calls[call].prompt, agent.calls[call].messages) == ("hi", None)
        shown = (await balancer.post("/api/show", {"name": "demo"})).json()
        assert shown["capabilities"] == ["completion"]
        assert shown["details"]["parameter_size"] == "8.0B"
        assert shown["model_info"]["llama.context_length"] == 2048


# --- vectors ---


@pytest.fixture
async def site() -> AsyncIterator[tuple[RunningBalancer, MemoryAgent]]:
    """An agent in memory that makes vectors of three numbers."""
    async with running_balancer(heartbeat_interval_s=60.0) as balancer:
        roster = balancer.app.wiring.roster
        yield balancer, MemoryAgent(roster, slots=0, queries=1, dimensions=3).register()


async def answered(agent: MemoryAgent, asked: Any) -> Any:
    """What a client gets, and the agent answers the one question of it."""
    task = asyncio.ensure_future(asked)
    await eventually(lambda: agent.unanswered_questions or task.done(), "the agent is asked")
    for call in tuple(agent.unanswered_questions):
        agent.embed(call)
    return await task


async def test_inputs_are_embedded(site: tuple[RunningBalancer, MemoryAgent]) -> None:
    balancer, agent = site
    async with ollama.AsyncClient(host=balancer.url) as client:
        several = await answered(
            agent, client.embed(model="demo:latest", input=["cat", "a"], dimensions=2)
        )
        assert several.embeddings == [[3.0, float(ord("c"))], [1.0, float(ord("a"))]]
        assert (several.model, several.prompt_eval_count) == ("demo:latest", 4)
        assert isinstance(several.total_duration, int)
        single = await answered(agent, client.embed(model="demo", input="cat", truncate=False))
        assert single.embeddings == [[3.0, float(ord("c")), 0.0]]
        older = await answered(
            agent,
            client.embeddings(model="demo", prompt="cat", options={"num_ctx": 8}, keep_alive=-1),
        )
        assert older.embedding == single.embeddings[0]
        assert (await client.embed(model="demo", input=[])).embeddings == []
        assert (await client.embeddings(model="demo", prompt="")).embedding == []
    assert [one.truncate for one in agent.questions.values()] == [True, False, True]
    assert {one.model for one in agent.questions.values()} == {"demo"}


async def test_an_older_route_with_inputs_answers_as_openai_does(
    site: tuple[RunningBalancer, MemoryAgent],
) -> None:
    balancer, agent = site
    body = {"model": "demo:latest", "input": ["cat", "a"], "dimensions": 2, "user": "me"}
    answer = await answered(agent, balancer.post("/api/embeddings", body))
    found = answer.json()
    assert (found["object"], found["model"]) == ("list", "demo")
    assert [row["index"] for row in found["data"]] == [0, 1]
    assert found["data"][0]["embedding"] == [3.0, float(ord("c"))]
    assert found["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    packed = {"input": "cat", "encoding_format": "base64", "timeout": 60}
    answer = await answered(agent, balancer.post("/api/embeddings", packed))
    assert isinstance(answer.json()["data"][0]["embedding"], str)
    wrong = await balancer.post("/api/embeddings", {"input": [""]})
    assert (wrong.status, wrong.error["param"]) == (400, "input[0]")
    other = await balancer.post("/api/embed", {"model": "demo", "input": [""]})
    assert (other.status, other.json()["detail"]["param"]) == (400, "input[0]")
    assert isinstance(other.error, str)
