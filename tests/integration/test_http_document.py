"""The OpenAPI document over HTTP: every example in it runs, and is answered as it says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from balancer.http.document.operation import Example, Operation
from balancer.http.document.operations import OPERATIONS
from balancer.http.exchange import Port
from protocol.generation import ContentDelta, ReasoningDelta, StepDelta, ToolCallDelta
from protocol.models import ServedModel
from tests.support.documented import documented, faults
from tests.support.fake_agent import FakeAgent, Script
from tests.support.running_balancer import RunningBalancer, running_balancer

MODEL = ServedModel(name="paddler-demo", context_tokens=2048, embedding_dimensions=3, reranks=True)
PIECES: tuple[StepDelta, ...] = (
    (ReasoningDelta(text="Well"),),
    "Hello",
    (ContentDelta(text=" you"),),
    (ToolCallDelta(index=0, id="call_1", name="look", arguments='{"at":'),),
    (ToolCallDelta(index=0, arguments='"it"}'),),
)
EXAMPLES = [
    pytest.param(port, row, example, id=f"{port} {row.method} {row.path} {example.name}")
    for row in OPERATIONS
    for port in row.ports
    for example in row.examples
]


@pytest.fixture
async def balancer() -> AsyncIterator[RunningBalancer]:
    async with (
        running_balancer() as balancer,
        FakeAgent(balancer.management_port, model=MODEL, script=Script(pieces=PIECES)),
        FakeAgent(balancer.management_port, model=MODEL, name="spare", slots=1),
    ):
        yield balancer


def _url(balancer: RunningBalancer, port: Port) -> str:
    return balancer.url if port == "inference" else balancer.management_url


def _path_of(row: Operation) -> tuple[str, str]:
    """As the document has it, and with the examples in its places."""
    path = row.path.replace("...}", "}")
    filled = path
    for one in row.parameters:
        if one.where == "path" and one.example is not None:
            filled = filled.replace(f"{{{one.name}}}", quote(one.example, safe=""))
    return path, filled


@pytest.mark.parametrize(("port", "row", "example"), EXAMPLES)
async def test_an_example_is_answered_as_the_document_says(
    balancer: RunningBalancer, port: Port, row: Operation, example: Example
) -> None:
    path, filled = _path_of(row)
    options: dict[str, Any] = {} if example.body is None else {"json": example.body}
    async with balancer.session.request(
        row.method, _url(balancer, port) + filled, params=example.query, **options
    ) as answer:
        body = await answer.read()
    assert answer.status == example.status, body
    assert answer.content_type == _content_type(row, example)
    assert answer.headers["X-Paddler-Request-Id"]
    found = faults(
        port, row.method, path, status=answer.status, content_type=answer.content_type, body=body
    )
    assert found == []


def _content_type(row: Operation, example: Example) -> str:
    if example.status != 200:
        return "application/json"
    answer = next(one for one in row.answers if one.status == 200)
    if answer.or_json and example.query.get("format") == "json":
        return "application/json"
    return answer.stream_type if example.is_stream else answer.content_type


@pytest.mark.parametrize("port", ["inference", "management"])
async def test_each_port_serves_its_own_valid_document_and_the_page(
    balancer: RunningBalancer, port: Port
) -> None:
    url = _url(balancer, port)
    served = await balancer.get_json(url + "/openapi.json")
    assert served == documented(port)
    assert list(OpenAPIV31SpecValidator(served).iter_errors()) == []
    async with balancer.session.get(url + "/docs") as page:
        assert page.status == 200
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert "openapi.json" in await page.text()


async def test_a_request_that_runs_is_listed_told_of_and_ended_as_the_document_says() -> None:
    async with (
        running_balancer() as balancer,
        FakeAgent(balancer.management_port, script=Script(is_held=True)) as agent,
    ):
        reader, writer = await balancer.open_chat()
        await agent.call()
        listed = await _checked(balancer, "GET", "/requests", "/requests")
        request_id = listed["data"][0]["id"]
        for method, path in (
            ("GET", "/requests/{id}/route"),
            ("GET", "/requests/{id}/timeline"),
            ("DELETE", "/requests/{id}"),
        ):
            await _checked(balancer, method, path, path.replace("{id}", request_id))
        assert b"request_cancelled" in await reader.read(4096)
        writer.close()
        await writer.wait_closed()


async def _checked(
    balancer: RunningBalancer, method: str, path: str, filled: str, port: Port = "management"
) -> Any:
    """The answer, which is good and has the documented shape."""
    async with balancer.session.request(method, _url(balancer, port) + filled) as answer:
        body = await answer.read()
        assert answer.status == 200, body
    found = faults(port, method, path, status=200, content_type=answer.content_type, body=body)
    assert found == []
    return json.loads(body)


async def test_a_stored_response_is_shown_and_forgotten_as_the_document_says(
    balancer: RunningBalancer,
) -> None:
    answer = await balancer.post("/v1/responses", {"input": "hi"})
    path = "/v1/responses/{id}"
    filled = path.replace("{id}", answer.json()["id"])
    shown = await _checked(balancer, "GET", path, filled, "inference")
    assert shown == answer.json()
    listed = await _checked(
        balancer, "GET", path + "/input_items", filled + "/input_items", "inference"
    )
    assert len(listed["data"]) == 1
    await _checked(balancer, "DELETE", path, filled, "inference")


async def test_a_wrong_request_is_refused_in_the_documented_shape_of_its_family(
    balancer: RunningBalancer,
) -> None:
    for row in OPERATIONS:
        if not row.bodies:
            continue
        path, filled = _path_of(row)
        port = row.ports[0]
        broken = b'{"model": 1, "model_id": 1'
        url = _url(balancer, port) + filled
        async with balancer.session.request(row.method, url, data=broken) as answer:
            body = await answer.read()
        assert answer.status == 400, row.path
        found = faults(
            port, row.method, path, status=400, content_type="application/json", body=body
        )
        assert found == [], row.path
