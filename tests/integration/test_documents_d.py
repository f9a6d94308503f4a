"""Document D: `/inference`, and models addressed by id and version."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from protocol.models import ServedModel
from tests.support.fake_agent import FakeAgent, Script
from tests.support.running_balancer import RunningBalancer, running_balancer
from tests.support.shapes import NUMBER, misfits

MESSAGES = [{"role": "user", "content": "hi"}]
ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "/v1/chat/completions": ("model", {"messages": MESSAGES}),
    "/v1/completions": ("model", {"prompt": "hi"}),
    "/v1/responses": ("model", {"input": "hi"}),
    "/v1/embeddings": ("model", {"input": "hi"}),
    "/v1/messages": ("model", {"messages": MESSAGES, "max_tokens": 5}),
    "/v1/messages/count_tokens": ("model", {"messages": MESSAGES}),
    "/v1/rerank": ("model", {"query": "a", "documents": ["a", "b"]}),
    "/tokenize": ("model", {"content": "hi"}),
    "/detokenize": ("model", {"tokens": [1]}),
    "/apply-template": ("model", {"messages": MESSAGES}),
    "/api/chat": ("model", {"messages": MESSAGES, "stream": False}),
    "/api/generate": ("model", {"prompt": "hi", "stream": False}),
    "/api/embed": ("model", {"input": "hi"}),
    "/api/embeddings": ("model", {"prompt": "hi"}),
    "/inference": ("model_id", {"inputs": {"text": "hi"}}),
}


def _model(version: str) -> ServedModel:
    return ServedModel(
        name="demo",
        version=version,
        context_tokens=2048,
        embedding_dimensions=3,
        reranks=True,
    )


@pytest.fixture
async def balancer() -> AsyncIterator[RunningBalancer]:
    """Two versions of a model, each on an agent that is named after it."""
    async with (
        running_balancer() as balancer,
        FakeAgent(
            balancer.management_port, name="v1", model=_model("1"), script=Script(pieces=("one",))
        ),
        FakeAgent(
            balancer.management_port, name="v2", model=_model("2"), script=Script(pieces=("two",))
        ),
    ):
        yield balancer


def _inference(text: str, **fields: Any) -> dict[str, Any]:
    return {"model_id": "demo", "inputs": {"text": text}, "parameters": {}, **fields}


@pytest.mark.parametrize(("version", "text"), [("1", "one"), ("2", "two")])
async def test_inference_answers_by_model_and_version(
    balancer: RunningBalancer, version: str, text: str
) -> None:
    for path in ("/inference", "/v1/inference"):
        answer = await balancer.post(path, _inference("hi", model_version=version))
        shape = {
            "model_id": "demo",
            "model_version": version,
            "outputs": {"generated_text": text, "token_count": int, "processing_time_ms": NUMBER},
        }
        assert misfits(answer.json(), shape) == []


async def test_inference_without_a_version_names_the_one_that_answered(
    balancer: RunningBalancer,
) -> None:
    for version, agent, other in (("2", "v2", "v1"), ("1", "v1", "v2")):
        async with balancer.session.post(f"{balancer.management_url}/agents/{other}/drain"):
            answer = await balancer.post("/inference", _inference("hi"))
        async with balancer.session.post(f"{balancer.management_url}/agents/{other}/undrain"):
            pass
        assert answer.headers["X-Paddler-Agent"] == agent
        assert answer.json()["model_version"] == version


async def test_an_error_of_inference_is_a_text_for_its_clients(balancer: RunningBalancer) -> None:
    for changes, status in (
        ({"model_id": "nobody"}, 404),
        ({"model_version": "9"}, 404),
        ({"inputs": {}}, 400),
        ({"parameters": {"temperature": 9}}, 400),
    ):
        answer = await balancer.post("/inference", _inference("hi", **changes))
        assert answer.status == status
        shape = {"error": str, "detail": {"message": str, "type": str, "code": str, "param": str}}
        assert misfits(answer.json(), shape) == []
        assert answer.json()["error"] == answer.json()["detail"]["message"]


async def test_a_parameter_at_fault_is_named_as_the_body_has_it(balancer: RunningBalancer) -> None:
    answer = await balancer.post("/inference", _inference("hi", parameters={"temperature": 9}))
    detail = answer.json()["detail"]
    assert detail["param"] == detail["details"]["field"] == "parameters.temperature"
    assert detail["details"]["received_value"] == 9


@pytest.mark.parametrize("version", ["1", "2"])
async def test_every_route_takes_a_version_behind_the_name(
    balancer: RunningBalancer, version: str
) -> None:
    for path, (field, body) in ROUTES.items():
        answer = await balancer.post(path, {**body, field: f"demo@{version}"})
        assert answer.status == 200, (path, answer.body)
        if "X-Paddler-Agent" in answer.headers:
            assert answer.headers["X-Paddler-Agent"] == f"v{version}", path


async def test_a_version_that_nobody_serves_is_not_found_on_any_route(
    balancer: RunningBalancer,
) -> None:
    for path, (field, body) in ROUTES.items():
        answer = await balancer.post(path, {**body, field: "demo@3"})
        assert answer.status == 404, (path, answer.body)


async def test_a_name_with_a_slash_is_percent_encoded_in_a_path() -> None:
    model = ServedModel(name="org/demo", version="7", context_tokens=512)
    async with running_balancer() as balancer, FakeAgent(balancer.management_port, model=model):
        for name in ("org%2Fdemo", "org%2Fdemo%407", "org/demo@7"):
            row = await balancer.get_json(f"{balancer.url}/v1/models/{name}")
            assert (row["object"], row["version"]) == ("model", "7")
