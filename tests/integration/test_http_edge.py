"""What ends at the edge: heads that are too large or too slow, and connections past the cap."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import WSMsgType

from balancer.http.management.live.calling import MAX_MESSAGE_BYTES
from protocol.codec import MAX_FRAME_BYTES
from tests.support.fake_agent import FakeAgent, Script, long_pieces
from tests.support.running_balancer import (
    PATIENCE_S,
    RunningBalancer,
    chat_bytes,
    eventually,
    running_balancer,
)

HEAD = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
REFUSALS = "paddler_edge_refusals_total"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _connect(balancer: RunningBalancer, sent: bytes = b"") -> Streams:
    reader, writer = await asyncio.open_connection("127.0.0.1", balancer.inference_port)
    writer.write(sent)
    return reader, writer


async def _answered(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], Any]:
    """Status, headers and body of one answer."""
    async with asyncio.timeout(PATIENCE_S):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        body = await reader.readexactly(int(headers["Content-Length"]))
    return int(first.split(" ")[1]), headers, json.loads(body)


async def _ended(reader: asyncio.StreamReader) -> bytes:
    """What came until the other side closed."""
    async with asyncio.timeout(PATIENCE_S):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


def _refused(balancer: RunningBalancer, reason: str) -> float:
    line = f'{REFUSALS}{{reason="{reason}"}} '
    text = balancer.app.wiring.metrics.text().decode()
    return sum(float(row[len(line) :]) for row in text.splitlines() if row.startswith(line))


@pytest.mark.parametrize(
    ("sent", "status", "reason"),
    [
        (HEAD + b"X: " + b"x" * 17_000, 431, "large_head"),
        (HEAD + (b"X: " + b"x" * 900 + b"\r\n") * 19, 431, "large_head"),
        (HEAD + b"X: 1\r\n" * 200 + b"\r\n", 431, "large_head"),
        (b"GET /" + b"a" * 9000, 414, "long_target"),
        (b"GET /?" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414, "long_target"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "no_http"),
    ],
)
async def test_a_head_that_is_too_large_is_refused_also_before_its_end(
    sent: bytes, status: int, reason: str
) -> None:
    async with running_balancer() as balancer:
        reader, writer = await _connect(balancer, sent)
        answered, headers, body = await _answered(reader)
        assert answered == status
        assert body["error"]["message"]
        assert body["error"]["request_id"] == headers["X-Paddler-Request-Id"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert await _ended(reader) == b""
        assert _refused(balancer, reason) == 1
        writer.close()


async def test_of_a_head_that_never_ends_no_more_is_taken_while_an_answer_streams() -> None:
    async with (
        running_balancer() as balancer,
        FakeAgent(balancer.management_port, script=Script(pieces=long_pieces(3000, 500))) as agent,
    ):
        _, writer = await _connect(balancer, chat_bytes(stream=True))
        await agent.call()
        writer.write(HEAD)
        writer.write((b"X: " + b"x" * 1000 + b"\r\n") * 20)
        await eventually(lambda: _refused(balancer, "large_head") == 1, "it is refused")
        await eventually(lambda: balancer.is_at_rest, "its answer ends")
        writer.close()


async def test_a_large_body_that_comes_in_pieces_is_no_head() -> None:
    async with running_balancer() as balancer, FakeAgent(balancer.management_port):
        body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "user": "x" * 60})
        body += " " * 3_000_000
        for pieces in (1, 2, 7):
            head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
            head += str(len(body))
            reader, writer = await _connect(balancer, head.encode() + b"\r\n\r\n")
            size = -(-len(body) // pieces)
            for start in range(0, len(body), size):
                writer.write(body[start : start + size].encode())
                await writer.drain()
            assert (await _answered(reader))[0] == 200
            writer.close()


async def test_who_sends_its_head_by_the_letter_is_told_and_dropped() -> None:
    async with running_balancer(slow_header_timeout_s=0.3) as balancer:
        reader, writer = await _connect(balancer)
        answer = asyncio.ensure_future(_answered(reader))
        for letter in HEAD + b"X: x\r\n" * 1000:
            if answer.done():
                break
            writer.write(bytes([letter]))
            await asyncio.sleep(0.01)
        status, headers, body = await answer
        assert (status, body["error"]["code"]) == (408, "request_timeout")
        assert headers["Connection"] == "close"
        assert _refused(balancer, "slow_head") == 1
        writer.close()


async def test_who_says_nothing_is_dropped_and_who_waits_between_requests_is_not() -> None:
    async with running_balancer(slow_header_timeout_s=0.2) as balancer:
        idle_reader, idle_writer = await _connect(balancer, HEAD + b"\r\n")
        assert (await _answered(idle_reader))[0] == 200
        idle_writer.write(b"\r\n")  # as some clients end a body
        reader, writer = await _connect(balancer)
        assert await _ended(reader) == b""
        assert _refused(balancer, "slow_head") == 1
        idle_writer.write(HEAD + b"\r\n")
        assert (await _answered(idle_reader))[0] == 200
        idle_writer.write(HEAD)
        assert (await _answered(idle_reader))[0] == 408
        for each in (writer, idle_writer):
            each.close()


async def test_a_connection_that_is_kept_and_not_used_is_closed_after_a_while() -> None:
    async with running_balancer(idle_timeout_s=0.2) as balancer:
        reader, writer = await _connect(balancer, HEAD + b"\r\n")
        assert (await _answered(reader))[0] == 200
        assert await _ended(reader) == b""
        await eventually(lambda: _open(balancer) == 0, "its place is free")
        writer.close()


async def test_past_the_cap_a_connection_is_told_so_and_others_go_on() -> None:
    async with running_balancer(max_connections=2) as balancer:
        held = [await _connect(balancer, HEAD + b"\r\n") for _ in range(2)]
        for reader, _ in held:
            assert (await _answered(reader))[0] == 200
        reader, writer = await _connect(balancer, HEAD + b"\r\n")
        status, headers, body = await _answered(reader)
        assert (status, body["error"]["code"]) == (503, "too_many_connections")
        assert int(headers["Retry-After"]) > 0
        assert _refused(balancer, "connections") == 1
        writer.close()
        detailed = await balancer.get_json(balancer.management_url + "/health")
        assert detailed["status"]  # operators have their own
        held[0][1].write(HEAD + b"\r\n")
        assert (await _answered(held[0][0]))[0] == 200
        held[1][1].close()
        await eventually(lambda: _open(balancer) == 1, "there is room again")
        reader, writer = await _connect(balancer, HEAD + b"\r\n")
        assert (await _answered(reader))[0] == 200
        for each in (writer, held[0][1]):
            each.close()


def _open(balancer: RunningBalancer) -> float:
    text = balancer.app.wiring.metrics.text().decode()
    (row,) = (
        row for row in text.splitlines() if row.startswith('paddler_connections_open{port="infe')
    )
    return float(row.rpartition(" ")[2])


async def test_a_crowd_past_the_cap_is_closed_without_words() -> None:
    async with running_balancer(max_connections=1) as balancer:
        held = await _connect(balancer, HEAD + b"\r\n")
        assert (await _answered(held[0]))[0] == 200
        crowd = [await _connect(balancer) for _ in range(100)]
        told = [await _ended(reader) for reader, _ in crowd]
        assert _refused(balancer, "connections") == 100
        assert 0 < sum(b"503" in one for one in told) < 100
        for _, writer in (*crowd, held):
            writer.close()


@pytest.mark.parametrize(
    ("path", "most"),
    [("/agents/connect", MAX_FRAME_BYTES), ("/ws/control", MAX_MESSAGE_BYTES)],
)
async def test_a_frame_that_is_too_large_ends_its_socket(path: str, most: int) -> None:
    async with (
        running_balancer() as balancer,
        balancer.session.ws_connect(balancer.management_url + path, max_msg_size=0) as socket,
    ):
        await socket.send_str(" " * (most + 1))
        async with asyncio.timeout(PATIENCE_S):
            while (await socket.receive()).type in (WSMsgType.TEXT, WSMsgType.BINARY):
                pass
        assert socket.close_code == 1009
