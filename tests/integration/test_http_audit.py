"""What operators do, and what others try, is in the audit log; over HTTP, sockets and signals."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from balancer.observability import audit_file
from tests.support.fake_agent import FakeAgent
from tests.support.keys import ADMIN, SYSTEM, USER, auth, bearer, unlimited
from tests.support.live_reader import LiveReader
from tests.support.running_balancer import RunningBalancer, eventually, running_balancer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
async def balancer(path: Path) -> AsyncIterator[RunningBalancer]:
    async with running_balancer(auth=auth(), limits=unlimited(), audit_log=str(path)) as balancer:
        yield balancer


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def is_in(path: Path, text: str) -> bool:
    return text in path.read_text()


def in_the_way_of(path: Path) -> Callable[[], None]:
    """A directory where the file should be; returns what removes it."""
    path.unlink()
    path.mkdir()
    return path.rmdir


async def noted(path: Path, action: str, **members: Any) -> dict[str, Any]:
    """The line that has these members, once it is there."""

    def found() -> list[dict[str, Any]]:
        return [
            line
            for line in lines(path)
            if line["action"] == action
            and all(line[name] == value for name, value in members.items())
        ]

    await eventually(found, f"a line of {action}, {members}")
    (line,) = found()
    return line


async def test_what_an_operator_does_is_noted_with_who_and_from_where(
    balancer: RunningBalancer, path: Path
) -> None:
    who = {"key": ADMIN, "role": "admin", "tenant": f"key:{ADMIN}", "method": "key"}
    async with FakeAgent(balancer.management_port, name="gpu0", token=SYSTEM):
        asked = [
            ("POST", "/agents/gpu0/drain", "agent.drain", "gpu0", "done"),
            ("POST", "/agents/gpu0/undrain", "agent.undrain", "gpu0", "done"),
            ("DELETE", "/agents/gpu0", "agent.remove", "gpu0", "done"),
            ("DELETE", "/agents/gpu7", "agent.remove", "gpu7", "refused"),
            ("DELETE", "/requests/req_7", "request.cancel", "req_7", "refused"),
            ("POST", "/config/reload", "config.reload", "", "done"),
        ]
        for method, route, action, target, outcome in asked:
            url = balancer.management_url + route
            async with balancer.session.request(method, url, headers=bearer(ADMIN)) as answer:
                request_id = answer.headers["X-Paddler-Request-Id"]
            line = await noted(path, action, target=target, outcome=outcome)
            assert (line["who"], line["from"]) == (who, "127.0.0.1")
            assert line["request_id"] == request_id
    refused = await noted(path, "agent.remove", outcome="refused")
    assert refused["facts"] == {"reason": "resource_not_found"}


async def test_calls_over_a_live_socket_are_noted_as_those_over_http(
    balancer: RunningBalancer, path: Path
) -> None:
    url = f"{balancer.management_url}/ws/control"
    async with balancer.session.ws_connect(url, headers=bearer(ADMIN)) as socket:
        reader = LiveReader(socket)
        await reader.call("agents.drain", id="gpu7")
        await reader.call("log_level.set", level="loud")
        await reader.call("config.reload")
        await reader.call("agents.list")
    for action, target in (("agent.drain", "gpu7"), ("log_level.set", "loud")):
        line = await noted(path, action, target=target, outcome="refused")
        assert (line["who"]["key"], line["who"]["method"]) == (ADMIN, "key")
        assert line["request_id"].startswith("req_")
    await noted(path, "config.reload", outcome="done")
    assert len(lines(path)) == 3


async def test_agents_that_join_and_that_may_not_are_noted(
    balancer: RunningBalancer, path: Path
) -> None:
    async with FakeAgent(balancer.management_port, name="gpu0", token=SYSTEM):
        line = await noted(path, "agent.join", target="gpu0")
        assert (line["who"]["key"], line["who"]["role"]) == (SYSTEM, "system")
        with contextlib.suppress(Exception):
            port = balancer.management_port
            async with FakeAgent(port, name="gpu0", token=SYSTEM, epoch="another"):
                pass
        line = await noted(path, "agent.refused", target="gpu0")
    assert (line["outcome"], line["facts"]) == ("refused", {"reason": "name_taken"})


async def test_wrong_keys_and_keys_that_may_not_are_noted_without_the_key(
    balancer: RunningBalancer, path: Path
) -> None:
    await balancer.post("/v1/chat/completions", {}, bearer("canary-of-a-wrong-key"))
    url = f"{balancer.management_url}/agents/gpu0"
    async with balancer.session.delete(url, headers=bearer(USER)) as answer:
        assert answer.status == 403
    wrong = await noted(path, "credentials.refused", target="POST /v1/chat/completions")
    assert (wrong["who"]["key"], wrong["facts"]) == ("", {"reason": "invalid_api_key"})
    low = await noted(path, "access.refused", target="DELETE /agents/{id}")
    assert (low["who"]["key"], low["facts"]) == (USER, {"reason": "insufficient_permissions"})
    await balancer.post("/v1/chat/completions", {})  # without a key: nobody tried anything
    assert len(lines(path)) == 2
    assert not is_in(path, "canary")


async def test_the_dashboard_s_sessions_are_noted(balancer: RunningBalancer, path: Path) -> None:
    url = f"{balancer.management_url}/session"
    async with balancer.session.post(url, json={"key": "canary-of-a-wrong-key"}) as answer:
        assert answer.status == 401
    async with balancer.session.post(url, json={"key": ADMIN}) as answer:
        headers = {"X-CSRF-Token": (await answer.json())["csrf_token"]}
        cookie = answer.cookies["paddler_session"].value
    headers["Cookie"] = f"paddler_session={cookie}"
    drain = f"{balancer.management_url}/agents/gpu7/drain"
    async with balancer.session.post(drain, headers=headers) as answer:
        assert answer.status == 404
    async with balancer.session.delete(url, headers=headers) as answer:
        assert answer.status == 200
    refused = await noted(path, "session.open", outcome="refused")
    assert refused["facts"] == {"reason": "invalid_api_key"}
    opened = await noted(path, "session.open", outcome="done")
    assert (opened["who"]["key"], opened["who"]["method"]) == (ADMIN, "key")
    drained = await noted(path, "agent.drain")
    assert (drained["who"]["key"], drained["who"]["method"]) == (ADMIN, "session")
    closed = await noted(path, "session.close")
    assert closed["who"]["method"] == "session"
    assert not is_in(path, "canary")
    assert not is_in(path, cookie)


async def test_a_request_is_answered_although_the_audit_log_cannot_be_written(
    balancer: RunningBalancer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_file, "TRIES_EVERY_S", 0.01)
    make_way = in_the_way_of(path)
    url = f"{balancer.management_url}/agents/gpu7/drain"
    async with balancer.session.post(url, headers=bearer(ADMIN)) as answer:
        assert answer.status == 404
    await eventually(lambda: balancer.app.wiring.audit.fault, "the fault")
    health = f"{balancer.management_url}/health"
    async with balancer.session.get(health, headers=bearer(ADMIN)) as answer:
        assert (await answer.json())["services"]["audit"] == "failing"
    make_way()
    await eventually(path.exists, "the file")
    await noted(path, "agent.drain")
