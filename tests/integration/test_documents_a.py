"""Document A: clients that know one address without `/v1`, and read `performance`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import NoneType
from typing import Any

import openai
import pytest

from protocol.models import ServedModel
from tests.support.fake_agent import FakeAgent, events_of
from tests.support.running_balancer import RunningBalancer, running_balancer
from tests.support.shapes import NUMBER, misfits

MODEL = ServedModel(name="demo", context_tokens=2048, embedding_dimensions=3)
MESSAGES = [{"role": "user", "content": "hi"}]
USAGE = {"prompt_tokens": int, "completion_tokens": int, "total_tokens": int}
PERFORMANCE = {"inference_time_ms": NUMBER, "queue_time_ms": NUMBER, "gpu_utilization": NoneType}
CHAT = {
    "id": str,
    "object": "chat.completion",
    "created": int,
    "model": "demo",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello, world"},
            "finish_reason": "stop",
        }
    ],
    "usage": USAGE,
    "performance": PERFORMANCE,
}
COMPLETION = {
    "id": str,
    "object": "text_completion",
    "created": int,
    "model": "demo",
    "choices": [{"index": 0, "text": "Hello, world", "finish_reason": "stop"}],
    "usage": USAGE,
    "performance": PERFORMANCE,
}
VECTORS = {
    "object": "list",
    "data": [{"object": "embedding", "embedding": [float], "index": int}],
    "model": "demo",
    "usage": {"prompt_tokens": int, "total_tokens": int},
}
MODELS = {"object": "list", "data": [{"id": "demo", "object": "model", "created": int}]}


@pytest.fixture
async def balancer() -> AsyncIterator[RunningBalancer]:
    async with (
        running_balancer() as balancer,
        FakeAgent(balancer.management_port, model=MODEL),
    ):
        yield balancer


@pytest.mark.parametrize(
    ("path", "body", "shape"),
    [
        ("/chat/completions", {"model": "demo", "messages": MESSAGES}, CHAT),
        ("/completions", {"model": "demo", "prompt": "hi"}, COMPLETION),
        ("/embeddings", {"model": "demo", "input": ["one", "two"]}, VECTORS),
    ],
)
async def test_the_routes_without_v1_answer_as_those_with_it(
    balancer: RunningBalancer, path: str, body: dict[str, Any], shape: dict[str, Any]
) -> None:
    for prefix in ("", "/v1"):
        answer = await balancer.post(prefix + path, body)
        assert answer.status == 200
        assert misfits(answer.json(), shape) == []


async def test_openai_s_client_works_with_the_bare_address(balancer: RunningBalancer) -> None:
    async with openai.AsyncOpenAI(base_url=balancer.url, api_key="any") as client:
        models = await client.models.list()
        assert [one.id for one in models.data] == ["demo"]
        chat = await client.chat.completions.create(
            model="demo",
            messages=[{"role": "user", "content": "hi"}],
        )
        assert chat.choices[0].message.content == "Hello, world"
        assert chat.model_extra is not None
        assert chat.model_extra["performance"]["queue_time_ms"] >= 0
        completion = await client.completions.create(model="demo", prompt="hi")
        assert completion.choices[0].text == "Hello, world"
        vectors = await client.embeddings.create(model="demo", input="three")
        assert vectors.data[0].embedding == [5.0, 0.0, 0.0]
    assert misfits(await balancer.get_json(balancer.url + "/models"), MODELS) == []


async def test_performance_is_read_from_an_answer_and_from_a_stream_s_last_chunk(
    balancer: RunningBalancer,
) -> None:
    response = (await balancer.chat()).json()
    assert response["performance"]["queue_time_ms"] >= 0
    assert response["performance"]["inference_time_ms"] > 0
    assert response["performance"]["gpu_utilization"] is None
    *_, last, done = events_of((await balancer.chat(stream=True)).body)
    assert done == "[DONE]"
    assert misfits(last["performance"], PERFORMANCE) == []


@pytest.mark.parametrize("path", ["/completions", "/v1/completions"])
async def test_an_empty_suffix_is_none(balancer: RunningBalancer, path: str) -> None:
    answer = await balancer.post(path, {"model": "demo", "prompt": "hi", "suffix": ""})
    assert answer.status == 200
    assert answer.json()["choices"][0]["text"] == "Hello, world"


async def test_api_embeddings_with_an_input_is_openai_s(balancer: RunningBalancer) -> None:
    answer = await balancer.post("/api/embeddings", {"model": "demo", "input": ["one", "three"]})
    assert answer.status == 200
    assert misfits(answer.json(), VECTORS) == []
    assert [row["embedding"] for row in answer.json()["data"]] == [[3.0, 0.0, 0.0], [5.0, 0.0, 0.0]]
    assert [row["index"] for row in answer.json()["data"]] == [0, 1]


async def test_api_embeddings_with_a_prompt_is_ollama_s(balancer: RunningBalancer) -> None:
    answer = await balancer.post("/api/embeddings", {"model": "demo", "prompt": "three"})
    assert answer.status == 200
    assert answer.json() == {"embedding": [5.0, 0.0, 0.0]}


async def test_a_refusal_that_may_be_tried_again_says_when_in_whole_seconds() -> None:
    async with running_balancer(queue_timeout_s=0) as balancer:
        answer = await balancer.chat()
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) >= 1
