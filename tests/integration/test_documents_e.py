"""Document E: answers in an envelope for those who ask, and errors that have its fields always."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from msgspec import structs

from balancer.http.document.operation import JSON, Operation
from balancer.http.document.operations import OPERATIONS
from balancer.http.envelope import ENVELOPE
from balancer.http.vectors import PIECE_FLOATS
from protocol.models import ServedModel
from tests.support.documented import faults
from tests.support.fake_agent import FakeAgent, events_of
from tests.support.running_balancer import RunningBalancer, running_balancer
from tests.support.shapes import MAYBE_TEXT, misfits

MODEL = ServedModel(name="paddler-demo", context_tokens=2048, embedding_dimensions=3, reranks=True)
MESSAGES = [{"role": "user", "content": "hi"}]
METADATA = {"timestamp": str, "request_id": str, "correlation_id": MAYBE_TEXT}
ERROR = {
    "status": "error",
    "error": {"message": str, "type": str, "code": str, "request_id": str, "details": dict},
    "timestamp": int,
    "metadata": METADATA,
}
ASKED = {"Accept": ENVELOPE, "X-Correlation-Id": "order-7"}


@pytest.fixture
async def balancer() -> AsyncIterator[RunningBalancer]:
    async with (
        running_balancer() as balancer,
        FakeAgent(balancer.management_port, model=MODEL),
        FakeAgent(balancer.management_port, model=MODEL, name="spare"),
    ):
        yield balancer


async def _chat(balancer: RunningBalancer, accept: str, **fields: Any) -> tuple[str, Any]:
    body = {"messages": MESSAGES, **fields}
    answer = await balancer.post("/v1/chat/completions", body, {**ASKED, "Accept": accept})
    return answer.headers["Content-Type"], answer.json()


async def test_an_answer_comes_in_the_envelope_that_was_asked_for(
    balancer: RunningBalancer,
) -> None:
    answer = await balancer.post("/v1/chat/completions", {"messages": MESSAGES}, ASKED)
    body = answer.json()
    assert answer.headers["Content-Type"] == ENVELOPE
    assert set(body) == {"status", "data", "metadata"}
    assert body["status"] == "success"
    assert body["data"]["choices"][0]["message"]["content"] == "Hello, world"
    assert misfits(body["metadata"], {**METADATA, "correlation_id": "order-7"}) == []
    assert body["metadata"]["request_id"] == answer.headers["X-Paddler-Request-Id"]
    assert body["metadata"]["timestamp"].endswith("Z")


async def test_every_json_answer_of_both_ports_comes_in_it_as_the_document_says(
    balancer: RunningBalancer,
) -> None:
    enveloped = 0
    for row in OPERATIONS:
        for port in row.ports:
            base = balancer.url if port == "inference" else balancer.management_url
            for example in row.examples:
                if example.is_stream or example.status != 200 or row.method == "DELETE":
                    continue
                options: dict[str, Any] = {} if example.body is None else {"json": example.body}
                async with balancer.session.request(
                    row.method, base + _filled(row), params=example.query, headers=ASKED, **options
                ) as answer:
                    body = await answer.read()
                assert answer.status == 200, row.path
                documented = next(one for one in row.answers if one.status == 200).content_type
                is_json = documented == JSON or example.query.get("format") == "json"
                assert (answer.content_type == ENVELOPE) == is_json, row.path
                enveloped += is_json
                path = row.path.replace("...}", "}")
                found = faults(
                    port,
                    row.method,
                    path,
                    status=200,
                    content_type=answer.content_type,
                    body=body,
                )
                assert found == [], row.path
    assert enveloped > 30


def _filled(row: Operation) -> str:
    """Its path, with the examples in its places."""
    path = row.path.replace("...}", "}")
    for one in row.parameters:
        if one.where == "path" and one.example is not None:
            path = path.replace(f"{{{one.name}}}", quote(one.example, safe=""))
    return path


async def test_a_long_answer_that_is_made_piece_by_piece_comes_in_it_too() -> None:
    model = structs.replace(MODEL, embedding_dimensions=PIECE_FLOATS)
    body = {"input": ["a"] * 20, "dimensions": PIECE_FLOATS // 8}
    async with running_balancer() as balancer, FakeAgent(balancer.management_port, model=model):
        answer = await balancer.post("/v1/embeddings", body, ASKED)
    assert "Content-Length" not in answer.headers
    assert answer.headers["Content-Type"] == ENVELOPE
    assert len(answer.json()["data"]["data"]) == 20
    assert misfits(answer.json()["metadata"], METADATA) == []


async def test_nobody_gets_an_envelope_unasked(balancer: RunningBalancer) -> None:
    for accept in ("*/*", "application/json", "text/html", "application/*", f"{ENVELOPE};q=0"):
        kind, body = await _chat(balancer, accept)
        assert kind == "application/json"
        assert body["object"] == "chat.completion"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (f"application/json, {ENVELOPE}", ENVELOPE),
        (ENVELOPE.upper(), ENVELOPE),
        (f"application/json;q=0.5, {ENVELOPE}; q=0.9", ENVELOPE),
        (f"application/json, {ENVELOPE};q=0.9", "application/json"),
        (f"{ENVELOPE};q=nonsense", "application/json"),
    ],
)
async def test_what_is_liked_better_is_sent(
    balancer: RunningBalancer, accept: str, expected: str
) -> None:
    kind, body = await _chat(balancer, accept)
    assert kind == expected
    assert ("data" in body) == (expected == ENVELOPE)


async def test_a_stream_comes_as_it_is(balancer: RunningBalancer) -> None:
    answer = await balancer.post(
        "/v1/chat/completions", {"messages": MESSAGES, "stream": True}, ASKED
    )
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    first, *_, done = events_of(answer.body)
    assert (first["object"], done) == ("chat.completion.chunk", "[DONE]")


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/messages", "/api/chat", "/inference"]
)
async def test_an_error_has_its_fields_on_every_family_s_routes_when_it_is_asked_for(
    balancer: RunningBalancer, path: str
) -> None:
    answer = await balancer.post(path, {"messages": 1}, ASKED)
    assert answer.status == 400
    assert answer.headers["Content-Type"] == ENVELOPE
    assert (
        misfits(answer.json(), {**ERROR, "metadata": {**METADATA, "correlation_id": "order-7"}})
        == []
    )


async def test_an_error_has_its_fields_unasked_on_openai_s_and_our_own_routes(
    balancer: RunningBalancer,
) -> None:
    refused: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/v1/chat/completions", {"data": b"{"}),
        ("GET", "/v1/chat/completions", {}),
        ("GET", "/v1/nothing", {}),
        ("GET", "/v1/models/nobody", {}),
        ("POST", "/v1/embeddings", {"json": {"input": []}}),
        ("GET", "/health", {"headers": {"Host": "evil.example"}}),
    ]
    for method, path, options in refused:
        async with balancer.session.request(method, balancer.url + path, **options) as answer:
            body = await answer.json()
        assert answer.status >= 400
        assert misfits(body, ERROR) == [], path
        assert body["error"]["request_id"] == body["metadata"]["request_id"]


async def test_what_a_parameter_s_error_knows_is_in_its_details(balancer: RunningBalancer) -> None:
    wrong = (await balancer.chat(temperature="hot")).error["details"]
    assert wrong == {
        "parameter": "temperature",
        "field": "temperature",
        "received_value": "hot",
        "expected": "0..2",
        "expected_type": "0..2",
        "issue": "invalid_type",
    }
    missing = (await balancer.post("/v1/chat/completions", {})).error["details"]
    assert missing == {"parameter": "messages", "field": "messages", "issue": "missing"}


async def test_a_client_of_the_envelope_reads_answers_as_it_always_did(
    balancer: RunningBalancer,
) -> None:
    async with aiohttp.ClientSession(headers=ASKED) as session:
        async with session.get(balancer.url + "/v1/models") as answer:
            response = await answer.json(content_type=None)
        assert response["status"] == "success"
        assert [row["id"] for row in response["data"]["data"]] == ["paddler-demo"]
        async with session.get(balancer.url + "/v1/models/nobody") as answer:
            response = await answer.json(content_type=None)
        assert response["status"] == "error"
        assert response["error"]["legacy_codes"] == ["RESOURCE_NOT_FOUND"]
        assert response["metadata"]["request_id"].startswith("req_")
