"""What every answer of every route carries, good or bad, whole or streamed: ids and security."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest
from multidict import CIMultiDict

from balancer.http.exchange import Port
from balancer.http.routes import ROUTES
from protocol.models import ServedModel
from tests.support.fake_agent import FakeAgent
from tests.support.running_balancer import RunningBalancer, running_balancer

MODEL = ServedModel(name="demo", context_tokens=2048, embedding_dimensions=3, reranks=True)
SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-XSS-Protection": "1; mode=block",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Strict-Transport-Security": "max-age=31536000",
}
SENT = {"X-Request-Id": "mine-1", "X-Correlation-Id": "order-7"}
HANDSHAKE = (
    b"GET /agents/connect HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
)
MESSAGES = [{"role": "user", "content": "hi"}]
STREAMS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/completions": {"prompt": "hi"},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {"model": "demo", "messages": MESSAGES, "max_tokens": 9},
    "/api/chat": {"model": "demo", "messages": MESSAGES},
    "/api/generate": {"model": "demo", "prompt": "hi"},
}


@pytest.fixture
async def balancer() -> AsyncIterator[RunningBalancer]:
    async with (
        running_balancer() as balancer,
        FakeAgent(balancer.management_port, model=MODEL),
    ):
        yield balancer


def _lacking(headers: Mapping[str, str]) -> list[str]:
    """What an answer to `SENT` should have and has not."""
    expected = {**SECURITY, **SENT}
    wrong = [name for name, value in expected.items() if headers.get(name) != value]
    ours = headers.get("X-Paddler-Request-Id", "")
    return wrong if ours.startswith("req_") else [*wrong, "X-Paddler-Request-Id"]


def _paths() -> Iterator[tuple[Port, str, str, bool]]:
    """Port, method and path of every row, under all its names; whether it opens a socket."""
    for route in ROUTES:
        for port in route.ports:
            for path in (route.path, *route.aliases):
                filled = path.replace("{id...}", "some").replace("{id}", "some")
                yield port, route.method, filled, route.is_socket


def _url(balancer: RunningBalancer, port: Port) -> str:
    return balancer.url if port == "inference" else balancer.management_url


async def test_every_route_answers_with_ids_and_security_headers(
    balancer: RunningBalancer,
) -> None:
    for port, method, path, _ in _paths():
        async with balancer.session.request(
            method, _url(balancer, port) + path, headers=SENT
        ) as answer:
            assert _lacking(answer.headers) == [], (method, path, answer.status)
            assert answer.status < 500, path


async def test_whoever_wants_no_promise_of_tls_makes_none() -> None:
    async with (
        running_balancer(strict_transport_security=False) as balancer,
        balancer.session.get(balancer.url + "/health", headers=SENT) as answer,
    ):
        assert _lacking(answer.headers) == ["Strict-Transport-Security"]


async def test_a_method_that_a_route_does_not_take_is_told_with_those_that_it_takes(
    balancer: RunningBalancer,
) -> None:
    for port, method, path, _ in _paths():
        async with balancer.session.request(
            "OPTIONS", _url(balancer, port) + path, headers=SENT
        ) as answer:
            assert answer.status == 405, path
            assert method in answer.headers["Allow"].split(", "), path
            assert _lacking(answer.headers) == [], path


async def test_head_has_the_headers_of_get(balancer: RunningBalancer) -> None:
    for port, method, path, is_socket in _paths():
        if method != "GET" or is_socket:
            continue
        async with balancer.session.head(_url(balancer, port) + path, headers=SENT) as answer:
            assert _lacking(answer.headers) == [], path
            assert await answer.read() == b""


@pytest.mark.parametrize("port", ["inference", "management"])
async def test_a_path_that_is_not_there_has_them(balancer: RunningBalancer, port: Port) -> None:
    for path in ("/nothing", "/v1/nothing", "/v2/messages/x", "/api/nothing", "/%00", "/v3/models"):
        async with balancer.session.get(_url(balancer, port) + path, headers=SENT) as answer:
            assert answer.status == 404, path
            assert _lacking(answer.headers) == [], path


@pytest.mark.parametrize("path", STREAMS)
async def test_a_stream_has_them(balancer: RunningBalancer, path: str) -> None:
    answer = await balancer.post(path, {**STREAMS[path], "stream": True}, SENT)
    assert answer.status == 200
    assert _lacking(answer.headers) == []
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["X-Accel-Buffering"] == "no"


async def test_a_stream_that_is_taken_up_again_has_them(balancer: RunningBalancer) -> None:
    body = {"messages": MESSAGES, "stream": True}
    first = await balancer.post("/v1/chat/completions", body, {**SENT, "X-Paddler-Resumable": "1"})
    ours = first.headers["X-Paddler-Request-Id"]
    async with balancer.session.get(f"{balancer.url}/v1/streams/{ours}", headers=SENT) as again:
        assert again.status == 200
        assert _lacking(again.headers) == []
        assert again.headers["X-Paddler-Request-Id"] == ours


async def test_an_agent_s_handshake_has_them(balancer: RunningBalancer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", balancer.management_port)
    sent = "".join(f"{name}: {value}\r\n" for name, value in SENT.items())
    writer.write(HANDSHAKE + sent.encode() + b"\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 101 ")
    assert _lacking(_headers_of(head)) == []


def _headers_of(head: bytes) -> CIMultiDict[str]:
    lines = (line.partition(": ") for line in head.decode().splitlines()[1:] if line)
    return CIMultiDict((name, value) for name, _, value in lines)


async def test_what_is_hardly_a_request_is_answered_with_them(balancer: RunningBalancer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", balancer.inference_port)
    writer.write(b"nonsense\r\n\r\n")
    headers = _headers_of(await reader.readuntil(b"\r\n\r\n"))
    writer.close()
    assert {name: headers[name] for name in SECURITY} == SECURITY
    assert headers["X-Request-Id"] == headers["X-Paddler-Request-Id"]
