"""Document B: clients of a proxy, which read `_proxy_info`, the states of models and its codes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from balancer.errors import BalancerError
from balancer.http.answers import error_object
from protocol.models import ServedModel
from protocol.refusals import RefusalCode
from tests.support.fake_agent import FakeAgent, Script, events_of
from tests.support.running_balancer import RunningBalancer, eventually, running_balancer
from tests.support.shapes import MAYBE_NUMBER, NUMBER, misfits

PROXY_INFO = {
    "provider": "one",
    "attempt_number": 1,
    "response_time": NUMBER,
    "request_id": str,
}
MODEL_ROW = {
    "id": str,
    "object": "model",
    "created": int,
    "owned_by": str,
    "provider_type": str,
    "status": str,
    "enabled": True,
    "forced": False,
}
CONFIG_STATUS = {
    "status": "valid",
    "last_loaded": str,
    "load_time_ms": NUMBER,
    "file_size_bytes": int,
    "providers_configured": int,
    "validation_errors": list,
    "cache_status": {"enabled": bool, "hit_rate": MAYBE_NUMBER, "entries": int},
}
RELOAD = {
    "success": True,
    "message": str,
    "reload_time_ms": NUMBER,
    "config_version": int,
    "changes_detected": False,
}
ERROR = {"message": str, "type": str, "code": str, "details": dict, "request_id": str}
CODES = {
    400: {"VALIDATION_ERROR", "INVALID_PARAMS", "invalid_request"},
    401: {"AUTHENTICATION_FAILED", "INVALID_AUTH", "unauthorized"},
    403: {"AUTHORIZATION_FAILED", "INSUFFICIENT_PERMS"},
    404: {"RESOURCE_NOT_FOUND"},
    429: {"RATE_LIMIT_EXCEEDED", "RATE_LIMITED", "rate_limited"},
    500: {"INTERNAL_ERROR"},
    503: {"SERVICE_UNAVAILABLE", "MODEL_UNAVAILABLE", "provider_unavailable"},
    504: {"TIMEOUT"},
}
"""What this document and the others look for in an error, by its status."""


@pytest.fixture
async def balancer() -> AsyncIterator[RunningBalancer]:
    async with running_balancer(queue_timeout_s=0.2) as balancer:
        yield balancer


@pytest.fixture
async def agent(balancer: RunningBalancer) -> AsyncIterator[FakeAgent]:
    async with FakeAgent(balancer.management_port, slots=1) as agent:
        yield agent


@pytest.mark.usefixtures("agent")
async def test_proxy_info_says_who_answered_and_at_which_attempt(
    balancer: RunningBalancer,
) -> None:
    answer = await balancer.post(
        "/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}
    )
    assert misfits(answer.json()["_proxy_info"], PROXY_INFO) == []
    assert answer.json()["_proxy_info"]["request_id"] == answer.headers["X-Paddler-Request-Id"]
    assert 0 < answer.json()["_proxy_info"]["response_time"] < 60
    streamed = await balancer.chat(stream=True)
    *_, last, _ = events_of(streamed.body)
    assert misfits(last["_proxy_info"], PROXY_INFO) == []


async def test_a_second_attempt_is_counted(balancer: RunningBalancer) -> None:
    async with (
        FakeAgent(balancer.management_port, script=Script(is_held=True)) as first,
        FakeAgent(
            balancer.management_port, name="two", slots=1, script=Script(is_held=True)
        ) as two,
    ):
        asking = asyncio.ensure_future(balancer.chat())
        await eventually(lambda: first.calls or two.calls, "somebody works on it")
        failing, other = (first, two) if first.calls else (two, first)
        other.script = Script()
        failing.kill()
        answer = await asking
    assert answer.json()["_proxy_info"]["attempt_number"] == 2
    assert answer.json()["_proxy_info"]["provider"] == other.name


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize("path", ["/v1/models", "/models"])
async def test_models_are_listed_with_their_state(balancer: RunningBalancer, path: str) -> None:
    body = await balancer.get_json(balancer.url + path)
    assert misfits(body, {"object": "list", "data": [MODEL_ROW]}) == []
    assert {row["status"] for row in body["data"]} <= {"healthy", "degraded", "unhealthy"}


async def test_a_model_s_state_follows_its_agents(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    async def state() -> str:
        models = await balancer.get_json(balancer.url + "/v1/models")
        return str(models["data"][0]["status"])

    assert await state() == "healthy"
    async with balancer.session.post(f"{balancer.management_url}/agents/one/drain"):
        assert await state() == "degraded"
    async with balancer.session.post(f"{balancer.management_url}/agents/one/undrain"):
        assert await state() == "healthy"
    assert agent.name == "one"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"messages": [{"role": "user", "content": "hi"}], "temperature": 3}, 400, "invalid_value"),
        ({"messages": [{"role": "user", "content": "hi"}], "model": "no"}, 404, "model_not_found"),
    ],
)
@pytest.mark.usefixtures("agent")
async def test_a_refusal_has_the_codes_of_before(
    balancer: RunningBalancer, body: dict[str, Any], status: int, code: str
) -> None:
    answer = await balancer.post("/v1/chat/completions", body)
    assert answer.status == status
    assert misfits(answer.error, {**ERROR, "code": code}) == []
    assert set(answer.error["legacy_codes"]) == CODES[status]


@pytest.mark.usefixtures("agent")
async def test_an_unknown_path_and_a_foreign_host_have_them_too(balancer: RunningBalancer) -> None:
    async with balancer.session.get(balancer.url + "/v1/nothing") as answer:
        assert (
            set((await answer.json())["error"]["legacy_codes"])
            == CODES[answer.status]
            == CODES[404]
        )
    forbidden = await balancer.post("/v1/chat/completions", {}, {"Host": "evil.example"})
    assert forbidden.status == 403
    assert set(forbidden.error["legacy_codes"]) == CODES[403]


@pytest.mark.parametrize("status", CODES)
def test_every_status_of_the_document_has_its_codes(status: int) -> None:
    error = type("Told", (BalancerError,), {"status": status})("so it is")
    assert set(error_object(error, "req_1")["legacy_codes"]) == CODES[status]


async def test_who_is_limited_reads_when_to_come_back_as_an_integer(
    balancer: RunningBalancer,
) -> None:
    script = Script(refuse_with=RefusalCode.CAP_EXCEEDED)
    async with FakeAgent(balancer.management_port, script=script):
        answer = await balancer.chat()
    assert answer.status == 429
    wait_s = int(answer.headers["Retry-After"])
    assert wait_s >= 1
    assert int(answer.headers["X-RateLimit-Retry-After"]) == wait_s
    assert answer.error["retry_after"] == wait_s
    assert set(answer.error["legacy_codes"]) == CODES[429]


async def test_who_finds_nobody_reads_when_to_come_back(balancer: RunningBalancer) -> None:
    async with FakeAgent(balancer.management_port, slots=1, script=Script(is_held=True)) as agent:
        reader, writer = await balancer.open_chat()
        await agent.call()
        waited = await balancer.chat()
        writer.close()
    del reader
    assert waited.status == 504
    assert int(waited.headers["Retry-After"]) == waited.error["retry_after"] >= 1
    assert set(waited.error["legacy_codes"]) == CODES[504]


async def test_two_models_are_two_rows() -> None:
    async with (
        running_balancer() as balancer,
        FakeAgent(balancer.management_port, model=ServedModel(name="a", context_tokens=512)),
        FakeAgent(
            balancer.management_port, name="two", model=ServedModel(name="b", context_tokens=512)
        ),
    ):
        body = await balancer.get_json(balancer.url + "/v1/models")
    assert misfits(body, {"object": "list", "data": [MODEL_ROW]}) == []
    assert sorted(row["id"] for row in body["data"]) == ["a", "b"]


async def test_a_reload_and_its_status_are_as_promised(balancer: RunningBalancer) -> None:
    status = await balancer.get_json(balancer.management_url + "/config/status")
    assert misfits(status, CONFIG_STATUS) == []
    for path in ("/config/reload", "/v1/config/reload"):
        async with balancer.session.post(balancer.management_url + path) as answer:
            assert answer.status == 200
            assert misfits(await answer.json(), RELOAD) == []
