"""The live sockets: snapshots, changes, calls, and readers that do not behave."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from aiohttp import ClientWebSocketResponse, WSMsgType, WSServerHandshakeError
from msgspec import structs

from balancer.http.calls import Call
from balancer.http.exchange import Wiring
from balancer.http.management.live import hub
from balancer.http.management.live.calling import MAX_CALLS
from balancer.observability.log_ring import LogRing
from balancer.observability.logging import configure
from tests.support.fake_agent import FakeAgent, Script
from tests.support.live_reader import live_reader
from tests.support.running_balancer import RunningBalancer, eventually

HELD = Script(is_held=True)
SOCKETS = ("/ws/control", "/ws/metrics", "/ws/logs")


@pytest.fixture
def log_ring(balancer: RunningBalancer) -> Iterator[LogRing]:
    """The balancer's, kept by the logging of this process while the test runs."""
    root, before = logging.getLogger(), structlog.get_config()
    handlers, level = list(root.handlers), root.level
    ring = balancer.app.wiring.live.logs.ring
    configure("info", "json", ring)
    # a logger that is used now must not keep this for the tests that come
    structlog.configure(**(structlog.get_config() | {"cache_logger_on_first_use": False}))
    yield ring
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)


async def test_agents_and_requests_are_seen_as_they_come_and_go(balancer: RunningBalancer) -> None:
    async with (
        live_reader(balancer, "/ws/control") as reader,
        FakeAgent(balancer.management_port, name="gpu.1", script=HELD) as agent,
    ):
        assert reader.data["agents"] == reader.data["requests"] == {}
        await reader.until(lambda data: "demo" in data["models"] and "gpu.1" in data["agents"])
        row = reader.data["agents"]["gpu.1"]
        assert {"connected", "last_heard"} < row.keys()
        assert not {"connected_for_s", "last_heard_s_ago", "clock_ahead_s"} & row.keys()
        running = asyncio.ensure_future(balancer.chat())
        call = await agent.call()
        await reader.until(lambda data: data["requests"])
        ((key, request),) = reader.data["requests"].items()
        assert (request["state"], request["agent"]) == ("running", "gpu.1")
        assert key == f"{request['id']}#0"
        assert "age_ms" not in request
        await agent.tokens(call, "Hello")
        await reader.until(lambda data: data["requests"][key]["completion_tokens"] == 1)
        assert reader.data["requests"][key]["arrived"] == request["arrived"]
        await agent.finish(call)
        await reader.until(lambda data: not data["requests"])
        await running
        agent.kill()
        await reader.until(lambda data: not data["agents"])


async def test_the_latest_that_are_over_are_told_the_last_to_end_at_the_end(
    balancer: RunningBalancer,
) -> None:
    async with (
        FakeAgent(balancer.management_port, script=HELD) as agent,
        live_reader(balancer, "/ws/control") as reader,
    ):
        assert reader.data["finished"] == {}
        asked = []
        for _ in range(2):
            asked.append(asyncio.ensure_future(balancer.chat()))
            await agent.call()
        await eventually(lambda: len(agent.calls) == 2, "both run")
        early, late = agent.calls.values()
        for call in (late, early):
            await agent.finish(call)
        await reader.until(lambda data: len(data["finished"]) == 2)
        ids = [(await one).headers["X-Paddler-Request-Id"] for one in asked]
        listed = await balancer.get_json(f"{balancer.management_url}/requests/finished")
        shown = list(reader.data["finished"].items())
        assert [key for key, _ in shown] == [f"{ids[1]}#0", f"{ids[0]}#0"]
        assert [row for _, row in reversed(shown)] == listed["data"]


async def test_readers_of_one_kind_are_sent_the_same_bytes(balancer: RunningBalancer) -> None:
    async with (
        live_reader(balancer, "/ws/control") as one,
        live_reader(balancer, "/v1/ws/control") as two,
        FakeAgent(balancer.management_port),
    ):
        for reader in (one, two):
            await reader.until(lambda data: data["agents"])
        assert (one.seq, one.data) == (two.seq, two.data)
        async with live_reader(balancer, "/ws/control") as late:
            assert late.seq >= two.seq
            assert late.data["agents"].keys() == {"one"}


async def test_nothing_is_looked_at_while_nobody_reads(balancer: RunningBalancer) -> None:
    live = balancer.app.wiring.live
    async with live_reader(balancer, "/ws/control"), live_reader(balancer, "/ws/metrics"):
        assert (live.control.is_active, live.metrics.is_active) == (True, True)
    await eventually(
        lambda: not (live.control.is_active or live.metrics.is_active), "the beats stop"
    )


async def test_figures_come_each_second_with_their_newest_point(balancer: RunningBalancer) -> None:
    async with FakeAgent(balancer.management_port), live_reader(balancer, "/ws/metrics") as reader:
        await balancer.chat()
        message = await reader.until(lambda data: data["now"]["requests"]["total"] == 1)
        assert message["point"]["values"]["slots.total"] == 4
        now = reader.data["now"]
        assert now["tokens"]["per_second"] > 0
        assert now["providers"]["one"]["successful_requests"] == 1
        assert now["models"]["demo"]["tokens_total"] == now["providers"]["one"]["total_tokens"]
        assert now["latency"]["ttft_p50_ms"] > 0
        assert now["cache"]["hit_rate"] == pytest.approx(2 / 7, abs=1e-4)
        await reader.socket.send_json({"type": "snapshot"})
        again = await reader.until_message(type="snapshot")
        assert again["data"]["series"]["interval_s"] == 1
        assert again["data"]["series"]["paths"]["slots.total"][-1] == 4


async def test_unknown_figures_are_null_and_not_zero(balancer: RunningBalancer) -> None:
    async with live_reader(balancer, "/ws/metrics") as reader:
        now = reader.data["now"]
        assert now["latency"] == dict.fromkeys(now["latency"])
        assert now["queue"] == dict.fromkeys(now["queue"])
        assert now["cache"] == {"hit_rate": None}


async def test_lines_of_the_log_are_filtered_and_hold_nothing_private(
    balancer: RunningBalancer, log_ring: LogRing
) -> None:
    log = structlog.get_logger("balancer.fleet.test")
    log.warning("before", request_id="req_1", prompt="secret words")
    async with (
        live_reader(balancer, "/ws/logs?level=warning&component=fleet") as fleet,
        live_reader(balancer, "/ws/logs?request_id=req_1") as about,
    ):
        for reader in (fleet, about):
            (line,) = reader.data["lines"]
            assert (line["event"], line["level"], line["component"]) == (
                "before",
                "warning",
                "fleet.test",
            )
            assert line["facts"] == {"prompt": "[not logged]"}
        log.info("too quiet", request_id="req_1")
        log.error("after", request_id="req_2", error=ValueError("x"))
        lines = (await fleet.until_message(type="lines"))["lines"]
        assert [line["event"] for line in lines] == ["after"]
        assert lines[0]["facts"] == {"error": "x"}
        lines = (await about.until_message(type="lines"))["lines"]
        assert [line["event"] for line in lines] == ["too quiet"]
    assert log_ring.last >= 3


async def test_a_level_that_is_none_is_refused_by_name(balancer: RunningBalancer) -> None:
    url = f"{balancer.management_url}/ws/logs?level=loud"
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    headers["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    async with balancer.session.get(url, headers=headers) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]["param"] == "level"


# --- calls ---


async def test_calls_answer_what_the_routes_answer(balancer: RunningBalancer) -> None:
    async with FakeAgent(balancer.management_port), live_reader(balancer, "/ws/logs") as reader:
        result = (await reader.call("agents.drain", id="one", deadline_s=60))["result"]
        shown = await balancer.get_json(f"{balancer.management_url}/agents/one")
        ages = {"connected_for_s", "last_heard_s_ago", "clock_ahead_s"}
        assert {k: v for k, v in result.items() if k not in ages} == {
            k: v for k, v in shown.items() if k not in ages
        }
        assert result["state"] == "draining"
        assert (await reader.call("agents.undrain", id="one"))["result"]["state"] == "ready"
        assert (await reader.call("health"))["result"]["providers"]["total"] == 1
        series = (await reader.call("metrics.series", paths="slots.total", last=5))["result"]
        assert series["paths"].keys() == {"slots.total"}


async def test_the_configuration_is_asked_for_and_read_again_over_a_socket(
    balancer: RunningBalancer,
) -> None:
    async with live_reader(balancer, "/ws/control") as reader:
        for method, path in (("config.get", "/config"), ("config.status", "/config/status")):
            result = (await reader.call(method))["result"]
            assert result == await balancer.get_json(balancer.management_url + path)
        answered = await reader.call("config.reload")
        url = f"{balancer.management_url}/config/reload"
        async with balancer.session.post(url) as answer:
            expected = await answer.json()
        told = answered.get("result") or answered["error"]["details"]
        assert told["success"] == expected["success"]
        assert told["changes_detected"] is False


@pytest.mark.parametrize(
    ("method", "params", "code", "param"),
    [
        ("agents.dance", {}, "route_not_found", "method"),
        ("agents.get", {"id": "nobody"}, "resource_not_found", None),
        ("agents.get", {}, "missing_required_parameter", "id"),
        ("agents.get", {"id": 7}, "invalid_type", "id"),
        ("agents.drain", {"id": "one", "deadline": 5}, "unsupported_parameter", "deadline"),
        ("agents.drain", {"id": "one", "deadline_s": -1}, "invalid_value", "deadline_s"),
        ("agents.drain", {"id": "one", "deadline_s": True}, "invalid_value", "deadline_s"),
        ("metrics.series", {"paths": "nothing"}, "invalid_value", "paths"),
        ("metrics.series", {"last": 1.5}, "invalid_value", "last"),
        ("metrics.series", {"last": 10**400}, "invalid_value", "last"),
        ("agents.drain", {"id": "one", "deadline_s": 10**400}, "invalid_value", "deadline_s"),
    ],
)
async def test_a_call_that_cannot_be_answered_gets_the_error_of_its_route(
    balancer: RunningBalancer, method: str, params: dict[str, object], code: str, param: str | None
) -> None:
    async with FakeAgent(balancer.management_port), live_reader(balancer, "/ws/logs") as reader:
        error = (await reader.call(method, **params))["error"]
        assert (error["code"], error["param"]) == (code, param)
        assert error["request_id"].startswith("req_")


async def test_calls_past_those_that_may_wait_are_refused_and_a_reader_may_leave_its_calls(
    balancer: RunningBalancer, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end = asyncio.Event()

    async def health(call: Call, _wiring: Wiring) -> dict[str, str]:
        await may_end.wait()
        return {"id": call.id}

    calls = balancer.app.wiring.calls
    monkeypatch.setitem(calls, "health", structs.replace(calls["health"], answer=health))
    async with live_reader(balancer, "/ws/control") as reader:
        for number in range(MAX_CALLS + 3):
            await reader.socket.send_json({"id": number, "method": "health"})
        for number in range(MAX_CALLS, MAX_CALLS + 3):
            error = (await reader.until_message(id=number))["error"]
            assert (error["code"], error["retry_after"]) == ("concurrency_limit_exceeded", 1)
        may_end.set()
        answered = [(await reader.message())["id"] for _ in range(MAX_CALLS)]
        assert sorted(answered) == list(range(MAX_CALLS))
        may_end.clear()
        await reader.socket.send_json({"id": 1, "method": "health"})
        assert (await reader.call("log_level.get"))["result"]
    room = balancer.app.wiring.live.control
    await eventually(lambda: not room.is_active, "the reader is gone")


HANDSHAKE = (
    b"GET /ws/logs HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def masked(message: object) -> bytes:
    """A short text frame of a client (RFC 6455, section 5.2), with a mask of zeros."""
    payload = json.dumps(message).encode()
    return bytes((0x81, 0x80 | len(payload), 0, 0, 0, 0)) + payload


def _calls_waiting() -> int:
    names = [task.get_name() for task in asyncio.all_tasks()]
    return names.count("call over a live socket")


async def test_answers_are_made_for_who_reads_them(
    balancer: RunningBalancer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    async def health(call: Call, _wiring: Wiring) -> str:
        made.append(call.id)
        return "x" * 4_000_000

    calls = balancer.app.wiring.calls
    monkeypatch.setitem(calls, "health", structs.replace(calls["health"], answer=health))
    reader, writer = await asyncio.open_connection("127.0.0.1", balancer.management_port)
    try:
        writer.write(HANDSHAKE)
        assert b" 101 " in await reader.readline()
        writer.write(b"".join(masked({"id": 1, "method": "health"}) for _ in range(MAX_CALLS)))
        await eventually(
            lambda: made and len(made) + _calls_waiting() == MAX_CALLS, "all calls have begun"
        )
        assert len(made) < MAX_CALLS / 2
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("text", ["garbage", "[1]", "{}", '{"type": "dance"}', '{"method": 7}'])
async def test_what_is_no_message_is_answered_and_the_socket_goes_on(
    balancer: RunningBalancer, text: str
) -> None:
    async with live_reader(balancer, "/ws/logs") as reader:
        await reader.socket.send_str(text)
        assert (await reader.until_message(id=None))["error"]["type"] == "invalid_request_error"
        await reader.socket.send_json({"type": "pong"})
        await reader.socket.send_json({"type": "ping"})
        assert (await reader.message()) == {"type": "pong"}


async def test_a_message_that_is_too_big_ends_the_socket(balancer: RunningBalancer) -> None:
    async with live_reader(balancer, "/ws/logs") as reader:
        await reader.socket.send_str("x" * 70_000)
        frame = await reader.socket.receive()
        assert (frame.type, frame.data) == (WSMsgType.CLOSE, 1009)


# --- who may read, and how much ---


@pytest.mark.parametrize("path", SOCKETS)
@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}],
    ids=["foreign", "null", "a name that was bound to this address"],
)
async def test_a_page_from_elsewhere_opens_no_socket(
    balancer: RunningBalancer, path: str, headers: dict[str, str]
) -> None:
    url = f"ws://127.0.0.1:{balancer.management_port}{path}"
    with pytest.raises(WSServerHandshakeError) as refused:
        await balancer.session.ws_connect(url, headers=headers)
    assert refused.value.status == 403


async def test_a_page_of_this_port_opens_a_socket(balancer: RunningBalancer) -> None:
    url = f"ws://127.0.0.1:{balancer.management_port}/ws/control"
    origin = f"http://127.0.0.1:{balancer.management_port}"
    async with balancer.session.ws_connect(url, headers={"Origin": origin}) as socket:
        assert "snapshot" in (await socket.receive_str())


async def test_one_reader_more_than_may_is_told_so(
    balancer: RunningBalancer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "MAX_READERS", 1)
    async with live_reader(balancer, "/ws/logs"):
        url = f"ws://127.0.0.1:{balancer.management_port}/ws/logs"
        with pytest.raises(WSServerHandshakeError) as refused:
            await balancer.session.ws_connect(url)
        assert refused.value.status == 503


async def test_sockets_end_with_the_balancer(balancer: RunningBalancer) -> None:
    url = f"ws://127.0.0.1:{balancer.management_port}"
    opened: list[ClientWebSocketResponse] = [
        await balancer.session.ws_connect(url + path) for path in SOCKETS
    ]
    balancer.app.stop()
    for socket in opened:
        async for _ in socket:
            pass
        assert socket.close_code == 1001
