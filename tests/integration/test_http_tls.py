"""TLS on both ports: what clients may rely on without it, they may rely on with it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import ssl
import struct
import warnings
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

import anthropic
import click
import openai
import pytest
import structlog
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from balancer.config_file.configuration import Configuration
from balancer.config_file.load import Sources
from balancer.http import handshakes
from balancer.terminal.chat import chat
from balancer.terminal.completion import served_models
from balancer.terminal.trust import trust_of
from tests.support.authority import Authority
from tests.support.fake_agent import FakeAgent, Script, long_pieces
from tests.support.keys import ADMIN, auth, bearer
from tests.support.own_command import run_command
from tests.support.running_balancer import (
    RunningBalancer,
    chat_bytes,
    eventually,
    running_balancer,
    small_buffers,
)

CAP_BYTES = 64 * 1024


@pytest.fixture
async def balancer(encrypted: dict[str, Any]) -> AsyncIterator[RunningBalancer]:
    async with running_balancer(**encrypted) as balancer:
        yield balancer


@contextlib.asynccontextmanager
async def _chat(
    balancer: RunningBalancer, trust: ssl.SSLContext, **fields: Any
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", balancer.inference_port, ssl=trust)
    try:
        writer.write(chat_bytes(**fields))
        yield reader, writer
    finally:
        writer.transport.abort()


def _agent(balancer: RunningBalancer, authority: Authority, **facts: Any) -> FakeAgent:
    return FakeAgent(balancer.management_port, trust=authority.trust(), **facts)


async def test_the_official_clients_talk_over_https_and_agents_over_wss(
    balancer: RunningBalancer, authority: Authority
) -> None:
    trust = authority.trust()
    async with (
        _agent(balancer, authority),
        AsyncOpenAI(
            base_url=f"{balancer.url}/v1",
            api_key="none",
            http_client=openai.DefaultAsyncHttpxClient(verify=trust),
        ) as open_ai,
        AsyncAnthropic(
            base_url=balancer.url,
            api_key="none",
            http_client=anthropic.DefaultAsyncHttpxClient(verify=trust),
        ) as claude,
    ):
        chunks = await open_ai.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        said = [chunk.choices[0].delta.content or "" async for chunk in chunks if chunk.choices]
        assert "".join(said) == "Hello, world"
        message = await claude.messages.create(
            model="demo", max_tokens=20, messages=[{"role": "user", "content": "hi"}]
        )
        assert [block.text for block in message.content if block.type == "text"] == ["Hello, world"]


async def test_what_is_big_arrives_both_ways(
    balancer: RunningBalancer, authority: Authority
) -> None:
    script = Script(pieces=long_pieces(400, 2000))
    async with _agent(balancer, authority, script=script):
        answer = await balancer.chat("x" * 200_000, stream=True)
        assert answer.status == 200
        assert all(str(piece).encode() in answer.body for piece in script.pieces)
    answer = await balancer.post("/v1/chat/completions", b"no JSON" * 140_000)
    assert answer.status == 400


async def test_operators_watch_over_wss_and_their_cookie_is_for_tls_alone(
    encrypted: dict[str, Any],
) -> None:
    async with running_balancer(**encrypted, auth=auth()) as balancer:
        url = f"{balancer.management_url}/session"
        async with balancer.session.post(url, json={"key": ADMIN}) as answer:
            assert "Secure" in answer.headers["Set-Cookie"]
        control = f"{balancer.management_url}/ws/control"
        async with balancer.session.ws_connect(control, headers=bearer(ADMIN)) as socket:
            assert (await socket.receive_json())["type"] == "snapshot"


async def test_our_own_programs_take_the_ca_s_file(
    balancer: RunningBalancer, authority: Authority
) -> None:
    ca_file = ("--ca-file", str(authority.ca_file))
    async with _agent(balancer, authority):
        watched, asked = await asyncio.gather(
            run_command("top", "--json", "--url", balancer.management_url, *ca_file),
            run_command("chat", "--url", balancer.url, *ca_file, stdin="hi"),
        )
    assert [agent["name"] for agent in json.loads(watched[1])["agents"]] == ["one"]
    assert asked == (0, "Hello, world\n", "")
    with pytest.raises(click.ClickException, match="name a PEM file"):
        trust_of("/no/such.pem")


def _models_completed(url: str, ca_file: Path | None) -> list[str]:
    context = click.Context(chat)
    context.params = {"url": url, "ca_file": None if ca_file is None else str(ca_file)}
    return served_models(context, chat.params[1], "")


async def test_models_are_completed_over_https(
    balancer: RunningBalancer, authority: Authority
) -> None:
    async with _agent(balancer, authority):
        completed = await asyncio.to_thread(_models_completed, balancer.url, authority.ca_file)
        assert completed == ["demo"]
        assert await asyncio.to_thread(_models_completed, balancer.url, None) == []


# --- clients that leave, and that do not read ---


Way = Literal["close", "reset", "half_close", "vanish"]


def _leave(writer: asyncio.StreamWriter, way: Way) -> None:
    sock: socket.socket = writer.get_extra_info("socket")
    match way:
        case "close":
            writer.close()
        case "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        case "half_close":  # TLS has none: its end of the socket is closed below TLS
            with socket.socket(fileno=os.dup(sock.fileno())) as below:
                below.shutdown(socket.SHUT_WR)
        case "vanish":  # without TLS' goodbye
            writer.transport.abort()


@pytest.mark.parametrize("way", get_args(Way))
@pytest.mark.parametrize("phase", ["waiting", "prefill", "stream"])
async def test_a_client_that_leaves_frees_its_slot_and_its_place(
    balancer: RunningBalancer, authority: Authority, way: Way, phase: str
) -> None:
    script, trust = Script(is_held=True), authority.trust()
    async with contextlib.AsyncExitStack() as stack:
        agent = await stack.enter_async_context(_agent(balancer, authority, slots=1, script=script))
        if phase == "waiting":
            await stack.enter_async_context(_chat(balancer, trust, stream=True))
            await agent.call()
        reader, leaving = await stack.enter_async_context(_chat(balancer, trust, stream=True))
        dispatcher = balancer.app.wiring.dispatcher
        if phase == "waiting":
            await eventually(lambda: dispatcher.waiting == 1, "it waits")
            _leave(leaving, way)
            await eventually(lambda: dispatcher.waiting == 0, "its place is free")
            return
        call = await agent.call()
        if phase == "stream":
            await agent.tokens(call, "Hello")
            await reader.readuntil(b"Hello")
        _leave(leaving, way)
        await eventually(lambda: balancer.is_at_rest, "its slot is free")


@contextlib.asynccontextmanager
async def _unread(
    balancer: RunningBalancer, trust: ssl.SSLContext, *, stream: bool = True
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client that asks and then reads no more than it must: its TLS takes 256 KiB anyway."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", balancer.inference_port))
    reader, writer = await asyncio.open_connection(
        sock=sock, ssl=trust, server_hostname="127.0.0.1", limit=1024
    )
    writer.write(chat_bytes(stream=stream))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def test_a_client_that_leaves_with_much_unread_frees_its_slot(
    encrypted: dict[str, Any], authority: Authority
) -> None:
    async with (
        running_balancer(small_buffers, max_unsent_bytes=CAP_BYTES, **encrypted) as balancer,
        _agent(balancer, authority, script=Script(pieces=long_pieces(3000, 500))) as agent,
        _unread(balancer, authority.trust()) as (_, leaving),
    ):
        call = await agent.call()
        await eventually(lambda: call.pauses == 1, "its generation is paused")
        _leave(leaving, "half_close")
        await eventually(lambda: balancer.is_at_rest, "its slot is free")


async def test_a_client_that_reads_nothing_is_paused_then_dropped_while_others_stream(
    encrypted: dict[str, Any], authority: Authority
) -> None:
    async with (
        running_balancer(
            small_buffers, max_unsent_bytes=CAP_BYTES, slow_client_timeout_s=0.5, **encrypted
        ) as balancer,
        _agent(balancer, authority, script=Script(pieces=long_pieces(3000, 500))) as agent,
        _unread(balancer, authority.trust()),
    ):
        call = await agent.call()
        await eventually(lambda: call.pauses == 1, "its generation is paused")
        agent.script = Script()
        assert b"[DONE]" in (await balancer.chat(stream=True)).body
        await eventually(lambda: balancer.is_at_rest, "it is dropped and its slot free")
        assert balancer.metric("paddler_slow_clients_dropped_total") == 1
        held = balancer.metric("paddler_stream_unsent_bytes_high_water")
        assert CAP_BYTES / 2 <= held <= CAP_BYTES


async def test_a_slow_client_that_reads_again_gets_every_byte(
    encrypted: dict[str, Any], authority: Authority
) -> None:
    pieces = long_pieces(600, 500)
    async with (
        running_balancer(small_buffers, max_unsent_bytes=CAP_BYTES, **encrypted) as balancer,
        _agent(balancer, authority, script=Script(pieces=pieces)) as agent,
        _unread(balancer, authority.trust()) as (reader, _),
    ):
        call = await agent.call()
        await eventually(lambda: call.pauses >= 1, "its generation is paused")
        received = await _up_to_done(reader)
        assert all(str(piece)[:6].encode() in received for piece in pieces)


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_ended_but_is_not_read_does_not_stay_for_ever(
    encrypted: dict[str, Any], authority: Authority, stream: bool
) -> None:
    async with (
        running_balancer(
            small_buffers, max_unsent_bytes=16 * CAP_BYTES, slow_client_timeout_s=0.3, **encrypted
        ) as balancer,
        _agent(balancer, authority, script=Script(pieces=long_pieces(1600, 500))),
        _unread(balancer, authority.trust(), stream=stream),
    ):
        await eventually(
            lambda: balancer.metric("paddler_slow_clients_dropped_total") == 1, "it is dropped"
        )
        await eventually(lambda: balancer.is_at_rest, "nothing is left")


async def _up_to_done(reader: asyncio.StreamReader) -> bytes:
    received = bytearray()
    while b"[DONE]" not in received[-100:] and (data := await reader.read(65536)):
        received += data
    return bytes(received)


# --- who is not let in ---


async def test_plain_http_is_refused_with_a_line_in_the_log_and_others_go_on(
    balancer: RunningBalancer,
) -> None:
    with structlog.testing.capture_logs() as logs:
        reader, writer = await asyncio.open_connection("127.0.0.1", balancer.inference_port)
        writer.write(chat_bytes())
        assert await reader.read() == b""
        writer.close()
    (line,) = [one for one in logs if one["event"] == "TLS handshake failed"]
    assert (line["reason"], line["address"]) == ("plain_http", "127.0.0.1")
    assert "https://" in line["means"]
    assert balancer.metric("paddler_tls_handshakes_failed_total") == 1
    assert (await balancer.get_json(f"{balancer.url}/health"))["status"]


async def test_a_client_of_an_old_tls_is_refused(
    balancer: RunningBalancer, authority: Authority
) -> None:
    old = authority.trust()
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with structlog.testing.capture_logs() as logs, pytest.raises(ConnectionError):
        await asyncio.open_connection("127.0.0.1", balancer.inference_port, ssl=old)
    assert [one["reason"] for one in logs if "reason" in one] == ["old_tls"]


async def test_handshakes_that_hang_are_bounded_and_end(
    encrypted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshakes, "MOST_OF_ADDRESS", 3)
    async with running_balancer(tls_handshake_timeout_s=0.5, **encrypted) as balancer:
        with structlog.testing.capture_logs() as logs:
            hanging = [
                await asyncio.open_connection("127.0.0.1", balancer.inference_port)
                for _ in range(4)
            ]
            for _, writer in hanging[:3]:
                writer.write(b"\x16\x03\x01\x02")  # a record begins
            for reader, _ in hanging:
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
            for _, writer in hanging:
                writer.close()
        reasons = [one["reason"] for one in logs if one["event"] == "TLS handshake failed"]
        assert sorted(reasons) == ["timeout", "too_many"]
        assert balancer.metric("paddler_tls_handshakes_failed_total") == 4
        assert (await balancer.get_json(f"{balancer.url}/health"))["status"]


# --- renewing ---


@pytest.fixture
def file(tmp_path: Path, authority: Authority) -> Path:
    _renew(tmp_path, authority)
    path = tmp_path / "paddler.yaml"
    path.write_text(
        "inference: 127.0.0.1:0\nmanagement: 127.0.0.1:0\n"
        f"tls_certificate: {tmp_path}/tls.pem\ntls_key: {tmp_path}/tls.key\n"
    )
    return path


def _written(file: Path, *, without: str) -> str:
    """What the file says, which from now on says it without some lines."""
    text = file.read_text()
    _write(file, "".join(line for line in text.splitlines(True) if without not in line))
    return text


def _write(file: Path, text: str) -> None:
    file.write_text(text)


def _renew(directory: Path, authority: Authority, **facts: Any) -> None:
    """Put another certificate where the balancer looks for its own."""
    for issued, name in zip(
        authority.issue("issued", **facts), ("tls.pem", "tls.key"), strict=True
    ):
        shutil.copy(issued, directory / name)


async def _shown(balancer: RunningBalancer, trust: ssl.SSLContext) -> bytes:
    """The certificate that a new connection is shown."""
    _, writer = await asyncio.open_connection("127.0.0.1", balancer.inference_port, ssl=trust)
    try:
        shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return shown
    finally:
        writer.transport.abort()


async def test_a_renewed_certificate_is_shown_to_newcomers_and_no_stream_is_dropped(
    file: Path, authority: Authority
) -> None:
    trust = authority.trust()
    async with (
        running_balancer(
            configuration=Configuration(Sources(config=file)), trust=trust
        ) as balancer,
        _agent(balancer, authority, script=Script(is_held=True)) as agent,
        _chat(balancer, trust, stream=True) as (reader, _),
    ):
        call = await agent.call()
        await agent.tokens(call, "before")
        await reader.readuntil(b"before")
        shown = await _shown(balancer, trust)

        ends = datetime(2030, 1, 1, tzinfo=UTC)
        _renew(file.parent, authority, ends=ends)
        async with balancer.session.post(f"{balancer.management_url}/config/reload") as answer:
            assert (await answer.json())["message"] == "changed: what TLS is made of"
        assert await _shown(balancer, trust) != shown
        assert balancer.metric("paddler_tls_certificate_ends_seconds") == ends.timestamp()

        await agent.tokens(call, "after")
        await agent.finish(call)
        assert b"after" in await reader.readuntil(b"[DONE]")


async def test_a_broken_certificate_leaves_the_one_before_in_force_and_is_told(
    file: Path, authority: Authority
) -> None:
    trust = authority.trust()
    async with running_balancer(
        configuration=Configuration(Sources(config=file)), trust=trust
    ) as balancer:
        shown = await _shown(balancer, trust)
        shutil.copy(authority.issue("another")[1], file.parent / "tls.key")
        async with balancer.session.post(f"{balancer.management_url}/config/reload") as answer:
            assert answer.status == 400
        status = await balancer.get_json(f"{balancer.management_url}/config/status")
        assert status["status"] == "invalid"
        (fault,) = status["validation_errors"]
        assert (fault["field"], fault["line"]) == ("tls_key", 4)
        assert "does not belong to the certificate" in fault["problem"]
        assert await _shown(balancer, trust) == shown


async def test_tls_can_be_switched_on_while_the_balancer_runs(
    file: Path, authority: Authority
) -> None:
    encrypted = _written(file, without="tls")
    trust = authority.trust()
    async with running_balancer(
        configuration=Configuration(Sources(config=file)), trust=trust
    ) as balancer:
        assert balancer.url.startswith("http://")
        _write(file, encrypted + "tls_ports: inference\n")
        assert (await balancer.app.wiring.configuration.reload("request")).succeeded
        assert balancer.url.startswith("https://")
        for url in (balancer.url, balancer.management_url):
            assert (await balancer.get_json(f"{url}/health"))["status"]
