"""What clients get for requests that cannot be served: a real status and the one error body."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import zlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import structlog

from tests.support.fake_agent import FakeAgent
from tests.support.running_balancer import (
    RunningBalancer,
    chat_bytes,
    eventually,
    running_balancer,
)

GET = b"GET /health HTTP/1.1\r\n"
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
HANDSHAKE = (
    b"GET /agents/connect HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n"
)
MESSAGES = [{"role": "user", "content": "hi"}]
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-XSS-Protection": "1; mode=block",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Strict-Transport-Security": "max-age=31536000",
}


@pytest.fixture
async def balancer() -> AsyncIterator[RunningBalancer]:
    async with (
        running_balancer(max_body_bytes=100_000, slow_body_timeout_s=0.3) as balancer,
        FakeAgent(balancer.management_port),
    ):
        yield balancer


def _chat(**fields: Any) -> dict[str, Any]:
    return {"messages": MESSAGES, **fields}


REFUSED: list[tuple[Any, int, str, str | None]] = [
    ({}, 400, "missing_required_parameter", "messages"),
    ({"messages": []}, 400, "invalid_value", "messages"),
    (_chat(temperature=3.5), 400, "invalid_value", "temperature"),
    (_chat(temperature="hot"), 400, "invalid_type", "temperature"),
    (_chat(max_tokens=0), 400, "invalid_value", "max_tokens"),
    (_chat(top_logprobs=3), 400, "invalid_value", "top_logprobs"),
    (_chat(store=True), 400, "unsupported_parameter", "store"),
    (
        _chat(response_format={"type": "json_schema"}),
        400,
        "missing_required_parameter",
        "response_format.json_schema",
    ),
    (_chat(tool_choice="required"), 400, "invalid_value", "tool_choice"),
    (_chat(logit_bias={"5": 101}), 400, "invalid_value", "logit_bias"),
    (_chat(model="no such model"), 400, "invalid_value", "model"),
    (_chat(model="other"), 404, "model_not_found", "model"),
    ([], 400, "invalid_type", None),
    (b"", 400, "invalid_json", None),
    (b"{", 400, "invalid_json", None),
    (b'{"messages": "\xff"}', 400, "invalid_json", None),
    (b"[" * 100_000, 400, "invalid_json", None),
    (b" " * 100_001, 413, "request_too_large", None),
]


@pytest.mark.parametrize(("body", "status", "code", "param"), REFUSED)
async def test_a_bad_request_is_named_in_the_one_error_body(
    balancer: RunningBalancer, body: Any, status: int, code: str, param: str | None
) -> None:
    answer = await balancer.post("/v1/chat/completions", body)
    assert answer.status == status
    assert answer.error["code"] == code
    assert answer.error["param"] == param
    assert answer.error["message"]
    assert answer.error["request_id"] == answer.headers["X-Paddler-Request-Id"]
    assert answer.json()["status"] == "error"
    assert SECURITY_HEADERS.items() <= dict(answer.headers).items()


async def test_a_wrong_value_is_shown_with_what_was_expected(balancer: RunningBalancer) -> None:
    answer = await balancer.chat(temperature=3.5)
    assert answer.error["details"] == {
        "parameter": "temperature",
        "field": "temperature",
        "issue": "invalid_value",
        "received_value": 3.5,
        "expected": "0..2",
    }


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "route_not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
        ("GET", "/agents", 404, "route_not_found"),
    ],
)
async def test_unknown_routes_and_methods_have_the_error_body_too(
    balancer: RunningBalancer, method: str, path: str, status: int, code: str
) -> None:
    async with balancer.session.request(method, balancer.url + path) as answer:
        assert answer.status == status
        assert (await answer.json())["error"]["code"] == code
        assert SECURITY_HEADERS.items() <= dict(answer.headers).items()
        assert (status == 405) == ("Allow" in answer.headers)


async def test_a_path_without_v1_and_a_body_under_any_content_type_are_served(
    balancer: RunningBalancer,
) -> None:
    for content_type in ("application/x-www-form-urlencoded", "text/plain", ""):
        answer = await balancer.post(
            "/chat/completions", _chat(), {"Content-Type": content_type or "*"}
        )
        assert answer.status == 200


async def test_a_compressed_body_is_read_and_bounded_by_its_real_size(
    balancer: RunningBalancer,
) -> None:
    headers = {"Content-Encoding": "gzip"}
    small = gzip.compress(json.dumps(_chat()).encode())
    assert (await balancer.post("/v1/chat/completions", small, headers)).status == 200
    broken = await balancer.post("/v1/chat/completions", b"no gzip", headers)
    assert broken.status == 400
    bomb = gzip.compress(b" " * 10_000_000)
    assert (await balancer.post("/v1/chat/completions", bomb, headers)).status == 413
    cut = await balancer.post("/v1/chat/completions", small[:-4], headers)
    assert cut.status == 400
    assert "ends before its gzip" in cut.error["message"]


async def test_the_size_of_a_compressed_body_itself_is_bounded_too(
    balancer: RunningBalancer,
) -> None:
    stored = zlib.compress(random.Random(1).randbytes(200_000), level=0)
    answer = await balancer.post("/v1/chat/completions", stored, {"Content-Encoding": "deflate"})
    assert answer.status == 413


@pytest.mark.parametrize("encoding", ["br", "snappy", "gzip, br", "gzip, gzip, gzip"])
async def test_a_body_compressed_in_an_unknown_way_is_415_with_the_remedy(
    balancer: RunningBalancer, encoding: str
) -> None:
    body = json.dumps(_chat()).encode()
    answer = await balancer.post("/v1/chat/completions", body, {"Content-Encoding": encoding})
    assert answer.status == 415
    assert answer.error["code"] == "unsupported_media_type"
    assert "gzip, deflate, zstd" in answer.error["message"]
    assert answer.headers["Accept-Encoding"] == "gzip, deflate, zstd"


async def test_a_client_s_sane_request_id_comes_back_and_ours_is_always_there(
    balancer: RunningBalancer,
) -> None:
    kept = await balancer.post("/v1/chat/completions", _chat(), {"X-Request-Id": "mine-1"})
    assert kept.headers["X-Request-Id"] == "mine-1"
    assert kept.headers["X-Paddler-Request-Id"].startswith("req_")
    for bad in ("x" * 129, "sp ace", "ü"):
        other = await balancer.post("/v1/chat/completions", _chat(), {"X-Request-Id": bad})
        assert other.headers["X-Request-Id"] == other.headers["X-Paddler-Request-Id"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:8080", "a.localhost"])
async def test_loopback_names_and_addresses_are_served(
    balancer: RunningBalancer, host: str
) -> None:
    assert (await balancer.post("/v1/chat/completions", _chat(), {"Host": host})).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "localhost.evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Host": "localhost", "Origin": "http://127.0.0.1"},
        {"Sec-Fetch-Site": "same-site"},
        {"X-Forwarded-For": "10.0.0.1"},
        {"Via": "1.1 front"},
    ],
)
async def test_a_foreign_page_and_a_proxy_are_refused(
    balancer: RunningBalancer, headers: dict[str, str]
) -> None:
    answer = await balancer.post("/v1/chat/completions", _chat(), headers)
    assert answer.status == 403
    assert answer.error["type"] == "permission_error"


async def test_a_foreign_page_cannot_open_an_agent_s_socket(balancer: RunningBalancer) -> None:
    url = f"{balancer.management_url}/agents/connect"
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await balancer.session.ws_connect(url, origin="http://evil.example")
    assert refused.value.status == 403
    async with balancer.session.get(url) as answer:
        assert answer.status == 400


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (GET + b"Host: a b\r\n\r\n", 403),
        (GET + b"Host: localhost\r\nX: " + b"x" * 17_000 + b"\r\n\r\n", 431),
        (GET + b"Host: localhost\r\n" + (b"X: " + b"x" * 900 + b"\r\n") * 19 + b"\r\n", 431),
        (POST + b"Content-Length: 9\r\n\r\n{", 413),
        (POST + b"Content-Length: 99999999\r\n\r\n{", 413),
    ],
)
async def test_what_is_hardly_http_gets_an_answer(
    balancer: RunningBalancer, sent: bytes, status: int
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", balancer.inference_port)
    writer.write(sent)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.split(b" ")[1] == b"%d" % status
    assert b"X-Frame-Options: DENY" in head
    writer.close()


async def test_a_client_that_asks_before_it_sends_is_told_to_go_on(
    balancer: RunningBalancer,
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", balancer.inference_port)
    head, _, body = chat_bytes().partition(b"\r\n\r\n")
    writer.write(head + b"\r\nExpect: 100-continue\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_an_http_1_0_client_gets_a_stream_that_ends_with_its_connection(
    balancer: RunningBalancer,
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", balancer.inference_port)
    writer.write(chat_bytes(stream=True).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    everything = await reader.read()
    assert b"Transfer-Encoding" not in everything
    assert everything.endswith(b"data: [DONE]\n\n")
    writer.close()


async def test_a_connection_serves_another_request_after_a_stream(
    balancer: RunningBalancer,
) -> None:
    reader, writer = await balancer.open_chat(stream=True)
    await reader.readuntil(b"[DONE]\n\n\r\n0\r\n\r\n")
    writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.close()


@pytest.mark.parametrize("word", [b"websocket", b"dGhlIHNhbXBsZSBub25jZQ=="])
async def test_a_handshake_whose_headers_are_no_text_is_refused(
    balancer: RunningBalancer, word: bytes
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", balancer.management_port)
    writer.write(HANDSHAKE.replace(word, word + b"\x9f"))
    answer = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400 ")


async def test_an_agent_that_leaves_at_once_leaves_no_traceback_in_the_log(
    balancer: RunningBalancer,
) -> None:
    with structlog.testing.capture_logs() as logs:
        for _ in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", balancer.management_port)
            writer.write(HANDSHAKE)
            writer.transport.abort()
        await eventually(
            lambda: sum(row.get("route") == "/agents/connect" for row in logs) > 5, "they are gone"
        )
    assert [row for row in logs if row["log_level"] == "error"] == []


@pytest.mark.parametrize("version", [b"HTTP/0.9", b"HTTP/2.0", b"HTTP/9.9"])
async def test_another_version_of_http_is_refused_in_ours(
    balancer: RunningBalancer, version: bytes
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", balancer.inference_port)
    writer.write(chat_bytes().replace(b"HTTP/1.1", version, 1))
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert head.split(b" ")[:2] in ([b"HTTP/1.1", b"400"], [b"HTTP/1.0", b"400"])


async def test_an_unreadable_body_that_nobody_wanted_leaves_no_traceback_in_the_log(
    balancer: RunningBalancer, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", balancer.inference_port)
    writer.write(
        GET + b"Host: localhost\r\nConnection: close\r\n"
        b"Content-Encoding: gzip\r\nContent-Length: 7\r\n\r\nno gzip"
    )
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert [record.message for record in caplog.records if record.exc_info] == []
