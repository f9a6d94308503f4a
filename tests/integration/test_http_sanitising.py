"""`sanitise`: what models are given and what clients are answered, as rules leave it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, get_args

import pytest

from balancer.config_file.sanitise_section import text_rules
from balancer.fleet.queries import TextQuestion
from balancer.http import sanitising
from balancer.http.sanitising import sanitised_inputs
from protocol.embeddings import EmbeddingRequest, RerankRequest, TokenizeRequest
from protocol.generation import ContentDelta, ReasoningDelta, StepDelta, ToolCallDelta
from protocol.models import ServedModel
from protocol.rendering import RenderRequest
from tests.support.fake_agent import FakeAgent, Script
from tests.support.running_balancer import RunningBalancer, running_balancer

CARD, HIDDEN = "1234-5678", "[card]"
PATTERN = r"\b\d{4}-\d{4}\b"


def rules(where: str, *more: dict[str, Any]) -> Any:
    card = {"name": "card", "pattern": PATTERN, "replace": HIDDEN, "where": where}
    return text_rules([card, *more])


@asynccontextmanager
async def serving(
    where: str, *pieces: StepDelta
) -> AsyncIterator[tuple[RunningBalancer, FakeAgent]]:
    script = Script(pieces=pieces) if pieces else Script()
    async with (
        running_balancer(sanitise=rules(where)) as balancer,
        FakeAgent(balancer.management_port, script=script) as agent,
    ):
        yield balancer, agent


def events(body: bytes) -> Iterator[Any]:
    for line in body.decode().splitlines():
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


CALLS = [{"id": "c1", "type": "function", "function": {"name": "pay", "arguments": f'"{CARD}"'}}]
ASKED: list[tuple[str, Any]] = [
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": f"my {CARD}"}]}),
    (
        "/v1/chat/completions",
        {
            "messages": [
                {"role": "system", "content": CARD},
                {"role": "user", "name": CARD, "content": [{"type": "text", "text": CARD}]},
                {"role": "assistant", "tool_calls": CALLS, "reasoning_content": CARD},
                {"role": "tool", "tool_call_id": "c1", "content": CARD},
            ]
        },
    ),
    ("/v1/completions", {"prompt": CARD, "suffix": CARD, "stream": True}),
    ("/v1/completions", {"prompt": [CARD, f"and {CARD}"]}),
    ("/v1/responses", {"input": CARD, "instructions": CARD}),
    ("/v1/messages", {"messages": [{"role": "user", "content": CARD}], "max_tokens": 5}),
    ("/api/generate", {"model": "demo", "prompt": CARD, "system": CARD}),
    ("/v1/rerank", {"query": CARD, "documents": [CARD, "none"]}),
    ("/tokenize", {"content": CARD}),
    ("/apply-template", {"messages": [{"role": "user", "content": CARD}]}),
]


async def test_no_text_reaches_a_model_but_as_the_rules_leave_it() -> None:
    async with serving("prompt", f"say {CARD}") as (balancer, agent):
        for path, body in ASKED:
            agent.started.clear()
            agent.asked.clear()
            answered = await balancer.post(path, body)
            assert answered.status == 200, (path, answered.body)
            given = repr([*agent.started, *agent.asked])
            assert (CARD in given, HIDDEN in given) == (False, True), path
        answered = await balancer.chat("hi")
        assert answered.json()["choices"][0]["message"]["content"] == f"say {CARD}"


async def test_inputs_of_embeddings_are_as_the_rules_leave_them() -> None:
    request = EmbeddingRequest(inputs=(CARD, "none"))
    assert (await sanitised_inputs(request, rules("both"))).inputs == (HIDDEN, "none")
    assert (await sanitised_inputs(request, rules("answer"))) is request
    model = ServedModel(name="demo", context_tokens=2048, embedding_dimensions=3)
    async with (
        running_balancer(sanitise=rules("prompt")) as balancer,
        FakeAgent(balancer.management_port, model=model),
    ):
        body = {"model": "demo", "input": [f"{CARD} {CARD}"]}
        (made,) = (await balancer.post("/v1/embeddings", body)).json()["data"]
    assert made["embedding"][0] == len(f"{HIDDEN} {HIDDEN}")  # as the agent's toy has it


def test_every_question_that_has_a_text_is_looked_at() -> None:
    looked_at = (RerankRequest, TokenizeRequest, RenderRequest)
    left = {kind.__name__ for kind in get_args(TextQuestion) if not issubclass(kind, looked_at)}
    assert left == {"Detokenize", "DescribeModel"}


async def test_a_long_prompt_is_looked_at_across_its_slices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sanitising, "SLICE_CHARS", 7)
    async with serving("prompt") as (balancer, agent):
        await balancer.chat(f"a {CARD} b " * 20)
    (call,) = agent.started
    assert call.messages is not None
    assert call.messages[0].content == f"a {HIDDEN} b " * 20


async def test_many_texts_let_others_have_their_turn() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    request = EmbeddingRequest(inputs=(CARD, "") * 5000)
    running = asyncio.ensure_future(other())
    looked_at = await sanitised_inputs(request, rules("prompt"))
    running.cancel()
    assert looked_at.inputs == (HIDDEN, "") * 5000
    assert turns > 100


async def test_an_answer_is_rewritten_wherever_its_steps_cut_it() -> None:
    expected = f"pay {HIDDEN} now ok"
    async with serving("answer") as (balancer, agent):
        for cut in range(len(CARD) + 1):
            pieces = (f"pay {CARD[:cut]}", f"{CARD[cut:]} now", "", " ok")
            agent.script = Script(pieces=pieces)
            whole = (await balancer.chat(f"with {CARD}", n=2)).json()
            assert [one["message"]["content"] for one in whole["choices"]] == [expected] * 2
            assert whole["usage"]["completion_tokens"] == 2 * (len(pieces) + 1)
            streamed = await balancer.chat("hi", stream=True, n=2)
            assert texts_of(streamed.body) == {0: expected, 1: expected}
        messages = agent.started[0].messages
    assert messages is not None
    assert messages[0].content == f"with {CARD}"


def texts_of(body: bytes) -> dict[int, str]:
    """The content of each choice of a chat's stream."""
    texts: dict[int, str] = {}
    for event in events(body):
        for choice in event["choices"]:
            text = choice["delta"].get("content") or ""
            texts[choice["index"]] = texts.get(choice["index"], "") + text
    return texts


KINDS = ("reasoning_content", "content", "tool_calls")


async def test_reasoning_and_arguments_are_rewritten_too_and_in_their_order() -> None:
    async with serving("both") as (balancer, agent):
        for cut in range(len(CARD) + 1):
            agent.script = Script(pieces=of_all_kinds(CARD[:cut], CARD[cut:]))
            (choice,) = (await balancer.chat("hi")).json()["choices"]
            streamed = (await balancer.chat("hi", stream=True)).body
            message = choice["message"]
            assert message["content"] == f"says {HIDDEN}"
            assert message["reasoning_content"] == f"thinks {HIDDEN}"
            functions = [one["function"] for one in message["tool_calls"]]
            assert [one["name"] for one in functions] == ["pay", "tell"]
            arguments = [one["arguments"] for one in functions]
            assert arguments == [f'{{"to": "{HIDDEN}"}}', f'"{HIDDEN}"']
            assert texts_of(streamed) == {0: f"says {HIDDEN}"}
            assert CARD not in streamed.decode()
            order = [KINDS.index(kind) for kind in kinds_of(streamed)]
            assert order == sorted(order)


def of_all_kinds(first: str, second: str) -> tuple[StepDelta, ...]:
    return (
        (ReasoningDelta(f"thinks {first}"),),
        (ReasoningDelta(second), ContentDelta(f"says {first}")),
        second,
        (ToolCallDelta(index=0, id="c1", name="pay", arguments=f'{{"to": "{first}'),),
        (ToolCallDelta(index=0, arguments=f'{second}"}}'),),
        (ToolCallDelta(index=1, id="c2", name="tell", arguments=f'"{first}{second}"'),),
    )


def kinds_of(body: bytes) -> Iterator[str]:
    """Of all deltas of a chat's stream, in their order."""
    for event in events(body):
        for choice in event["choices"]:
            yield from (kind for kind in KINDS if choice["delta"].get(kind))


async def test_what_was_held_back_is_in_stored_and_resumed_answers() -> None:
    async with serving("answer", f"ends with {CARD}") as (balancer, _):
        made = (await balancer.post("/v1/responses", {"input": "hi"})).json()
        url = f"{balancer.url}/v1/responses/{made['id']}"
        stored = await balancer.get_json(url)
        body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
        headers = {"X-Paddler-Resumable": "true"}
        resumed = await balancer.post("/v1/chat/completions", body, headers)
    for one in (made, stored):
        assert one["output"][-1]["content"][0]["text"] == f"ends with {HIDDEN}"
    assert texts_of(resumed.body) == {0: f"ends with {HIDDEN}"}


@pytest.mark.parametrize(
    ("where", "path", "body", "param"),
    [
        ("answer", "/v1/chat/completions", {"logprobs": True}, "top_logprobs"),
        ("answer", "/v1/completions", {"prompt": "a", "logprobs": 1}, "logprobs"),
        ("answer", "/v1/completions", {"prompt": "a", "best_of": 2}, "best_of"),
        ("prompt", "/v1/completions", {"prompt": [1, 2]}, "prompt"),
        ("prompt", "/v1/completions", {"prompt": [[1, 2], [3]]}, "prompt"),
        ("prompt", "/v1/completions", {"prompt": "a", "echo": True, "logprobs": 1}, "echo"),
        ("prompt", "/v1/embeddings", {"input": [1, 2]}, "input"),
    ],
)
async def test_what_rules_cannot_be_kept_for_is_refused_by_name(
    where: str, path: str, body: dict[str, Any], param: str
) -> None:
    messages = {"messages": [{"role": "user", "content": "hi"}]} if "chat" in path else {}
    async with serving(where) as (balancer, agent):
        answered = await balancer.post(path, {**messages, **body})
        assert (answered.status, answered.error["param"]) == (400, param), answered.body
        assert answered.error["code"] == "unsupported_parameter"
        assert agent.started == []


async def test_text_that_is_none_is_refused_where_rules_look_at_it() -> None:
    async with serving("prompt") as (balancer, _):
        answered = await balancer.post("/v1/completions", b'{"prompt": "\\ud800 and more"}')
        assert answered.status == 400


async def test_half_of_what_would_be_replaced_is_not_sent_when_a_generation_fails() -> None:
    async with (
        running_balancer(sanitise=rules("answer")) as balancer,
        FakeAgent(balancer.management_port, script=Script(is_held=True)) as agent,
    ):
        reader, writer = await balancer.open_chat(stream=True)
        call = await agent.call()
        await agent.tokens(call, f"hello, I will pay with {CARD[:-1]}")
        await reader.readuntil(b"hello")
        row = (await balancer.get_json(f"{balancer.management_url}/requests"))["data"][0]
        url = f"{balancer.management_url}/requests/{row['id']}"
        async with balancer.session.delete(url) as answer:
            assert answer.status == 200
        rest = await reader.readuntil(b"request_cancelled")
        assert CARD[:4].encode() not in rest
        writer.close()


async def test_without_rules_nothing_of_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("it was called")

    for name in ("sanitised_generation", "sanitised_sinks", "flush"):
        monkeypatch.setattr(f"balancer.http.answering.{name}", fail)
    async with running_balancer() as balancer, FakeAgent(balancer.management_port):
        assert (await balancer.chat("hi", stream=True)).status == 200
