"""What clients, tenants, web pages and the network try: each is stopped, and each leaves a record.

docs/guides/security.md names them; what agents and authors of model files try is in
test_hostile_agents.py.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.support.attempts import edge_refusals, recorded, request, told
from tests.support.encoded import ENCODE
from tests.support.fake_agent import FakeAgent
from tests.support.image_host import image_host
from tests.support.keys import ADMIN, SYSTEM, USER, auth, bearer, unlimited
from tests.support.running_balancer import (
    Answer,
    RunningBalancer,
    running_balancer,
)

METADATA = "169.254.169.254"
"""Where clouds tell a host its own credentials."""
CHAT = "/v1/chat/completions"
MOST_BYTES = 1_000_000
HI = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def balancer() -> AsyncIterator[RunningBalancer]:
    async with running_balancer(
        auth=auth(), limits=unlimited(), max_body_bytes=MOST_BYTES
    ) as balancer:
        yield balancer


@pytest.fixture
async def agent(balancer: RunningBalancer) -> AsyncIterator[FakeAgent]:
    async with FakeAgent(balancer.management_port, token=SYSTEM) as agent:
        yield agent


async def send(
    balancer: RunningBalancer, method: str, path: str, key: str = "", **options: Any
) -> Answer:
    """To the management port where the path begins with `//`."""
    base = balancer.management_url if path.startswith("//") else balancer.url
    headers = {**(bearer(key) if key else {}), **options.pop("headers", {})}
    url = base + path.removeprefix("/") if path.startswith("//") else base + path
    async with balancer.session.request(method, url, headers=headers, **options) as answer:
        return Answer(status=answer.status, headers=answer.headers, body=await answer.read())


def image(url: str) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
        ]
    }


# --- paths and URLs ---


async def test_no_name_in_a_path_leads_out_of_its_folder(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    for up in ("..", "%2e%2e", "..%2f..", "..%2F..%2f..", "....//..", "..%5c..", "%252e%252e%252f"):
        with recorded() as records:
            for target in (
                f"/models/{up}/etc/passwd/metadata",
                f"/agents/{up}%2fetc%2fpasswd",
                f"/requests/{up}%2fetc%2fpasswd/route",
                f"/assets/{up}/handler.py",
                f"/assets/{up}%2fhandler.py",
            ):
                line = f"Authorization: Bearer {ADMIN}"
                found = await told(balancer.management_port, request("GET", target, line))
                assert found.statuses == [404], target
            for target in (f"/v1/responses/{up}%2fkeys.sqlite", f"/v1/streams/{up}%2fa"):
                line = f"Authorization: Bearer {USER}"
                found = await told(balancer.inference_port, request("GET", target, line))
                assert found.statuses == [404], target
        found_codes = {event["error"] for event in records.events if event["event"] == "request"}
        assert found_codes <= {"route_not_found", "resource_not_found", "model_not_found"}
    with recorded() as records:
        answer = await balancer.post(CHAT, {**HI, "model": "../../etc/passwd"}, bearer(USER))
        assert answer.status == 404
    records.refusal(404, "model_not_found")
    assert not agent.started


async def test_an_image_s_url_leads_to_no_host_that_is_not_listed_however_it_is_written() -> None:
    async with image_host() as host:
        host.add("/out", status=302, headers={"Location": f"http://{METADATA}/latest/meta-data/"})
        host.add("/name", status=302, headers={"Location": host.url("/x", host="localhost")})
        listed = (host.name, f"localhost:{host.port}", "nowhere.invalid")
        hidden = (
            *("127.0.0.2", "2130706434", "0x7f000002", "0177.0.0.2", "127.2", "[::ffff:127.0.0.2]"),
            *(METADATA, "2852039166", "0xa9fea9fe", "[::ffff:a9fe:a9fe]", "[fd00:ec2::254]"),
            *("[::1]", "0", "[::]", "metadata.google.internal", f"{METADATA}.nip.io"),
            *(f"{host.name}@{METADATA}", f"{METADATA}#@{host.name}", f"{METADATA}\\@{host.name}"),
        )
        urls = [f"http://{name}/latest/meta-data/" for name in hidden]
        urls += [host.url("/out"), host.url("/name"), "http://nowhere.invalid/", "HTTP://[::1"]
        async with running_balancer(image_hosts=listed) as balancer:
            for url in urls:
                with recorded() as records:
                    answer = await balancer.post(CHAT, image(url))
                assert (answer.status, answer.error["code"]) == (400, "invalid_value"), url
                assert records.refusal(400, "invalid_value")["image_refused"], url
        assert {asked.path for asked in host.asked} == {"/out", "/name"}


async def test_a_listed_name_that_resolves_to_an_inner_address_is_not_called() -> None:
    async with image_host() as host:
        async with running_balancer(image_hosts=(f"localhost:{host.port}",)) as balancer:
            with recorded() as records:
                answer = await balancer.post(CHAT, image(host.url("/cat", host="localhost")))
            assert answer.status == 400
            why = records.refusal(400, "invalid_value")["image_refused"]
            assert why == "its host has no address that this service may call"
        assert host.asked == []


async def test_no_other_url_of_a_request_leads_anywhere(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    inner = f"http://{METADATA}/"
    user, file = {"role": "user"}, {"type": "input_file", "file_url": inner}
    document = {"type": "document", "source": {"type": "url", "url": inner}}
    mcp = {"type": "mcp", "server_label": "x", "server_url": inner}
    for path, body in (
        *((CHAT, image(url)) for url in ("file:///etc/passwd", "gopher://a/", "//a/", inner)),
        (CHAT, image("data:image/png;base64,data:image/png;base64,AAAA")),
        (CHAT, image("data:image/png;base64,../../etc/passwd")),
        ("/v1/responses", {"input": [{**user, "content": [file]}]}),
        ("/v1/responses", {"input": "hi", "tools": [mcp]}),
        ("/v1/responses", {"input": "hi", "background": True, "webhook": inner}),
        ("/v1/messages", {"max_tokens": 8, "messages": [{**user, "content": [document]}]}),
        ("/v1/messages", {"max_tokens": 8, **HI, "mcp_servers": [{"type": "url", "url": inner}]}),
        ("/api/chat", {"model": "demo", "messages": [{**user, "content": "", "images": [inner]}]}),
    ):
        with recorded() as records:
            answer = await balancer.post(path, body, bearer(USER))
        assert answer.status == 400, (path, body)
        records.refusal(400, str(re.findall(rb'"code":"(\w+)"', answer.body)[0].decode()))
    assert not agent.started


# --- the wire ---

AFTER = request("GET", "/v1/models")
"""What is hidden behind a request, such that a proxy takes it for a part of that."""
BODY = json.dumps(HI).encode()
POST = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\n".encode()
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n" + CHUNKED,
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n" + CHUNKED,
        POST + LENGTH + b"Content-Length: 3\r\n\r\n" + BODY,
        POST + LENGTH + LENGTH + b"\r\n" + BODY,
        POST + b"Content-Length: 45, 45\r\n\r\n" + BODY,
        POST + b"Content-Length: +45\r\n\r\n" + BODY,
        POST + b"Content-Length : 45\r\n\r\n" + BODY,
        POST + b"X: a\r\n folded: b\r\n" + LENGTH + b"\r\n" + BODY,
        POST + b"Transfer-Encoding:\r\n chunked\r\n" + CHUNKED,
        POST.replace(b"\r\n", b"\n") + LENGTH + b"\r\n" + BODY,
        POST + b"X: a\n" + LENGTH + b"\r\n" + BODY,
        POST + b"X: a\r" + LENGTH + b"\r\n" + BODY,
        POST + b"X: a\0b\r\n" + LENGTH + b"\r\n" + BODY,
        POST + b"Transfer-Encoding: xchunked\r\n" + CHUNKED,
        POST + b"Transfer-Encoding: chunked, identity\r\n" + CHUNKED,
        POST + b"Transfer-Encoding : chunked\r\n" + CHUNKED,
        POST + b"Transfer-Encoding: \x0bchunked\r\n" + CHUNKED,
        POST + b"Transfer-Encoding: chunked\r\n\r\n0x2d\r\n" + BODY + CHUNKED,
        POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n2d\n" + BODY + b"\n0\n\n",
        POST + b"Host: evil.example\r\n" + LENGTH + b"\r\n" + BODY,
    ],
)
async def test_a_request_whose_length_can_be_read_in_two_ways_is_refused_with_what_follows(
    balancer: RunningBalancer, sent: bytes
) -> None:
    with recorded() as records:
        found = await told(balancer.inference_port, sent + AFTER)
    assert (found.statuses, found.code) == ([400], "invalid_value")
    assert edge_refusals(balancer, "no_http") == 1
    refused = records.event("refused at the edge", reason="no_http", address="127.0.0.1")
    assert refused["why"]


async def test_a_request_hidden_in_a_body_is_not_answered(balancer: RunningBalancer) -> None:
    """The body is not read where nobody may send one: the connection ends with it."""
    with recorded() as records:
        hidden = request("GET", "/metrics", f"Authorization: Bearer {ADMIN}")
        found = await told(balancer.inference_port, request("POST", CHAT, body=hidden))
    assert found.statuses == [401]
    records.refusal(401, "missing_credentials")


async def test_what_is_too_large_is_refused_by_name(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    message = HI["messages"][0]
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    schema = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(20_000)}}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    for more, code, param in (
        ({"messages": [message] * 10_001}, "invalid_value", "messages"),
        ({"tools": [tool] * 1025}, "invalid_value", "tools"),
        ({"stop": ["a"] * 17}, "invalid_value", "stop"),
        ({"stop": ["a" * 2000]}, "invalid_value", "stop[0]"),
        ({"n": 10**9}, "invalid_value", "n"),
        ({"max_tokens": 10**18}, "invalid_value", "max_tokens"),
        ({"logit_bias": dict.fromkeys(map(str, range(10_001)), 1)}, "invalid_value", "logit_bias"),
        ({"response_format": form}, "invalid_value", "response_format.json_schema.schema"),
        ({"metadata": json.loads("[" * 100 + "]" * 100)}, "invalid_json", None),
    ):
        with recorded() as records:
            answer = await balancer.post(CHAT, {**HI, **more}, bearer(USER))
        assert (answer.status, answer.error["code"], answer.error["param"]) == (400, code, param)
        records.refusal(400, code)
    with recorded() as records:
        answer = await balancer.post(CHAT, b" " * (MOST_BYTES + 1), bearer(USER))
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")
    records.refusal(413, "request_too_large")
    for sent, status, reason in (
        (request("GET", "/", "X: " + "x" * 17_000), 431, "large_head"),
        (request("GET", "/", *["X: 1"] * 200), 431, "large_head"),
        (request("GET", "/" + "a" * 9000), 414, "long_target"),
    ):
        assert (await told(balancer.inference_port, sent)).statuses == [status]
        assert edge_refusals(balancer, reason)
    assert not agent.started


async def test_a_body_that_unpacks_to_more_than_it_may_is_not_unpacked(
    balancer: RunningBalancer,
) -> None:
    zeros = bytes(5 * MOST_BYTES)
    for encoding, bomb in (
        ("gzip", gzip.compress(zeros)),
        ("zstd", ENCODE["zstd"](zeros)),
        ("gzip, gzip", gzip.compress(gzip.compress(zeros))),
        ("gzip", gzip.compress(b"") * 2000),
        ("gzip, gzip, gzip", b""),
    ):
        headers = {**bearer(USER), "Content-Encoding": encoding}
        with recorded() as records:
            answer = await balancer.post(CHAT, bomb, headers)
        assert answer.status in (400, 413, 415), encoding
        records.refusal(answer.status, answer.error["code"])


async def test_names_and_ids_of_clients_begin_no_line_of_a_log(balancer: RunningBalancer) -> None:
    forged = "x\n2026-01-01T00:00:00Z [info] request status=200 \x1b[2J\u2028admin"
    with recorded() as records:
        answer = await balancer.post(CHAT, {**HI, "model": forged}, bearer(USER))
        assert (answer.status, answer.error["param"]) == (400, "model")
        for name in ("X-Request-Id", "X-Correlation-Id", "traceparent", "User-Agent"):
            for value, status in (("a\tb\u2028c %0a", 401), ("\x1b[2J", 400)):
                sent = request("GET", "/v1/models", f"{name}: {value}")
                assert (await told(balancer.inference_port, sent)).statuses == [status]
        assert edge_refusals(balancer, "no_http") == 4
        found = await told(balancer.inference_port, request("GET", "/%E2%80%A8%0a%1b%5b2J"))
        assert found.statuses == [404]
    for command in ("\n", "\\n", "\x1b", "\\u001b", "\u2028", "[2J"):
        assert not records.holds(command)
    records.refusal(400, "invalid_value")
    records.refusal(401, "missing_credentials")
    records.refusal(404, "route_not_found")
    records.event("refused at the edge", reason="no_http", address="127.0.0.1")


async def test_who_sends_a_head_by_the_letter_is_dropped() -> None:
    async with running_balancer(slow_header_timeout_s=0.2) as balancer:
        with recorded() as records:
            found = await told(balancer.inference_port, b"GET /health HTTP/1.1\r\nHost: loc")
        assert found.statuses == [408]
        assert edge_refusals(balancer, "slow_head") == 1
        records.event("refused at the edge", reason="slow_head", address="127.0.0.1")


# --- pages in an operator's browser ---


@pytest.mark.parametrize("path", ["/ws/control", "/ws/logs", "/ws/metrics", "/agents/connect"])
async def test_a_page_of_another_origin_opens_no_socket(path: str) -> None:
    async with running_balancer() as balancer:
        url = balancer.management_url + path
        with recorded() as records, pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await balancer.session.ws_connect(url, origin="http://evil.example")
        assert refused.value.status == 403
        assert edge_refusals(balancer, "foreign_origin") == 1
        records.refusal(403, "insufficient_permissions")


async def test_a_name_that_was_rebound_to_this_host_and_a_proxy_open_nothing_without_keys() -> None:
    async with running_balancer() as balancer:
        for headers, reason in (
            ({"Host": "evil.example"}, "foreign_host"),
            ({"Host": "127.0.0.1.evil.example"}, "foreign_host"),
            ({"Host": "localhost@evil.example"}, "foreign_host"),
            ({"X-Forwarded-For": "127.0.0.1"}, "proxied"),
        ):
            before = edge_refusals(balancer, reason)
            with recorded() as records:
                assert (await balancer.post(CHAT, HI, headers)).status == 403
            assert edge_refusals(balancer, reason) == before + 1
            records.refusal(403, "insufficient_permissions")


async def signed_in(balancer: RunningBalancer, **headers: str) -> tuple[str, str]:
    """A cookie, and the token that changes need."""
    answer = await send(balancer, "POST", "//session", json={"key": ADMIN}, headers=headers)
    balancer.session.cookie_jar.clear()
    (cookie,) = re.findall(r"paddler_session=([^;]+)", answer.headers["Set-Cookie"])
    return cookie, answer.json()["csrf_token"]


async def test_a_cookie_without_its_page_s_token_changes_nothing(balancer: RunningBalancer) -> None:
    cookie, _ = await signed_in(balancer)
    _, of_another_session = await signed_in(balancer)
    for token in ("", "guess", of_another_session):
        headers = {"Cookie": f"paddler_session={cookie}", "X-CSRF-Token": token}
        with recorded() as records:
            answer = await send(balancer, "POST", "//keys", json={"name": "mine"}, headers=headers)
        assert answer.status == 403
        records.refusal(403, "insufficient_permissions")
    assert (await send(balancer, "GET", "//keys", ADMIN)).json()["data"] == []


async def test_a_session_that_somebody_else_chose_is_never_signed_in(
    balancer: RunningBalancer,
) -> None:
    chosen = "a" * 43
    cookie, _ = await signed_in(balancer, Cookie=f"paddler_session={chosen}")
    assert cookie != chosen
    with recorded() as records:
        headers = {"Cookie": f"paddler_session={chosen}"}
        assert (await send(balancer, "GET", "//agents", headers=headers)).status == 401
    records.refusal(401, "missing_credentials")
