"""Document C: versions in paths, compressed bodies, ids that go along, routes that will go."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import date
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
import structlog
from msgspec import structs

from balancer import app as balancer_app
from balancer.http.deprecation import Deprecation
from balancer.http.routes import ROUTES
from protocol.models import ServedModel
from tests.support.encoded import ENCODE
from tests.support.fake_agent import FakeAgent
from tests.support.running_balancer import RunningBalancer, running_balancer

MODEL = ServedModel(name="demo", context_tokens=2048, embedding_dimensions=3, reranks=True)
CHAT = {"model": "demo", "messages": [{"role": "user", "content": "hi"}]}
BODIES: dict[str, dict[str, Any]] = {
    "/chat/completions": CHAT,
    "/completions": {"model": "demo", "prompt": "hi"},
    "/responses": {"model": "demo", "input": "hi"},
    "/embeddings": {"model": "demo", "input": "hi"},
    "/messages": {**CHAT, "max_tokens": 5},
    "/messages/count_tokens": CHAT,
    "/rerank": {"model": "demo", "query": "a", "documents": ["a", "b"]},
    "/tokenize": {"model": "demo", "content": "hi"},
    "/detokenize": {"model": "demo", "tokens": [1]},
    "/apply-template": CHAT,
    "/inference": {"model_id": "demo", "inputs": {"text": "hi"}},
}
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
async def balancer() -> AsyncIterator[RunningBalancer]:
    async with (
        running_balancer(max_body_bytes=100_000) as balancer,
        FakeAgent(balancer.management_port, model=MODEL),
    ):
        yield balancer


async def test_v1_and_v2_and_no_version_at_all_are_the_same(balancer: RunningBalancer) -> None:
    for path, body in BODIES.items():
        answers = [await balancer.post(prefix + path, body) for prefix in ("/v1", "/v2", "")]
        assert [answer.status for answer in answers] == [200, 200, 200], path
        first, *others = (set(answer.json()) for answer in answers)
        assert others == [first, first], path
    for path in ("/models", "/models/demo", "/health", "/ready"):
        found = [await balancer.get_json(balancer.url + one + path) for one in ("/v1", "/v2", "")]
        assert set(found[0]) == set(found[1]) == set(found[2]), path


@pytest.mark.parametrize("encoding", ENCODE)
async def test_every_route_takes_a_compressed_body(
    balancer: RunningBalancer, encoding: str
) -> None:
    for path, body in BODIES.items():
        data = ENCODE[encoding](json.dumps(body).encode())
        answer = await balancer.post("/v1" + path, data, {"Content-Encoding": encoding})
        assert answer.status == 200, path


@pytest.mark.parametrize("encoding", ENCODE)
async def test_a_compressed_body_is_bounded_by_what_it_becomes(
    balancer: RunningBalancer, encoding: str
) -> None:
    bomb = ENCODE[encoding](b" " * 30_000_000)
    assert len(bomb) < 100_000
    answer = await balancer.post("/v1/chat/completions", bomb, {"Content-Encoding": encoding})
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")
    assert (await balancer.chat()).status == 200


@pytest.mark.parametrize(
    ("encoding", "sent", "status"),
    [
        ("zstd", ENCODE["zstd"](json.dumps(CHAT).encode())[:-6], 400),
        ("deflate", ENCODE["deflate"](json.dumps(CHAT).encode())[:-6], 400),
        ("zstd", json.dumps(CHAT).encode(), 400),
        ("br", json.dumps(CHAT).encode(), 415),
    ],
)
async def test_a_body_that_cannot_be_undone_is_told_so(
    balancer: RunningBalancer, encoding: str, sent: bytes, status: int
) -> None:
    answer = await balancer.post("/v1/chat/completions", sent, {"Content-Encoding": encoding})
    assert answer.status == status
    assert encoding in answer.error["message"]


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_client_s_ids_are_returned_and_logged_and_ours_is_another(
    balancer: RunningBalancer, *, is_stream: bool
) -> None:
    sent = {"X-Request-Id": "mine-1", "traceparent": TRACE, "X-Correlation-Id": "order/7"}
    body = {**CHAT, "stream": is_stream}
    with structlog.testing.capture_logs() as logs:
        answers = [await balancer.post("/v1/chat/completions", body, sent) for _ in range(2)]
    for answer in answers:
        assert {name: answer.headers[name] for name in sent} == sent
    ours = [answer.headers["X-Paddler-Request-Id"] for answer in answers]
    assert len({*ours, "mine-1"}) == 3
    lines = [row for row in logs if row["event"] == "request"]
    assert [row["request_id"] for row in lines] == ours
    assert {row["client_request_id"] for row in lines} == {"mine-1"}
    assert {row["traceparent"] for row in lines} == {TRACE}


async def test_ids_that_are_not_sane_are_not_returned(balancer: RunningBalancer) -> None:
    sent = {"X-Request-Id": "a b", "traceparent": "x" * 129, "X-Correlation-Id": "<script>"}
    answer = await balancer.post("/v1/chat/completions", CHAT, sent)
    assert answer.headers["X-Request-Id"] == answer.headers["X-Paddler-Request-Id"]
    assert not {"traceparent", "X-Correlation-Id"} & set(answer.headers)


async def test_a_client_s_id_addresses_nothing(balancer: RunningBalancer) -> None:
    sent = {"X-Request-Id": "mine-1", "X-Paddler-Resumable": "1"}
    await balancer.post("/v1/chat/completions", {**CHAT, "stream": True}, sent)
    async with balancer.session.get(balancer.url + "/v1/streams/mine-1") as answer:
        assert answer.status == 404


async def test_a_route_that_will_go_says_so_in_answers_errors_and_streams(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    going = Deprecation(since=date(2027, 1, 1), sunset=date(2027, 12, 31))
    routes = tuple(
        structs.replace(route, deprecation=going) if "/v1/completions" in route.path else route
        for route in ROUTES
    )
    monkeypatch.setattr(balancer_app, "ROUTES", routes)
    async with running_balancer() as balancer, FakeAgent(balancer.management_port):
        for body in ({"prompt": "hi"}, {"prompt": "hi", "stream": True}, {}):
            answer = await balancer.post("/v1/completions", body)
            assert int(answer.headers["Deprecation"].removeprefix("@")) == 1798761600
            assert parsedate_to_datetime(answer.headers["Sunset"]).date() == going.sunset
            assert answer.headers["Link"] == '</docs>; rel="deprecation"; type="text/html"'
        other = await balancer.chat()
        assert not {"Deprecation", "Sunset", "Link"} & set(other.headers)
        document = await balancer.get_json(balancer.url + "/openapi.json")
        assert document["paths"]["/v1/completions"]["post"]["deprecated"] is True
