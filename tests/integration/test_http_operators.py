"""What operators are told: health, totals, models, timelines; and the log's level."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from balancer.http.management import models
from protocol.models import ServedModel
from protocol.refusals import RefusalCode
from tests.support.fake_agent import FakeAgent, Script
from tests.support.running_balancer import RunningBalancer, eventually

HELD = Script(is_held=True)
DETAILED = {
    "status": str,
    "timestamp": str,
    "services": {"balancer": str, "fleet": str, "audit": str},
    "performance": {"avg_response_time_ms": float, "requests_per_second": float},
    "health_score": int,
    "response_time": float,
    "providers": dict.fromkeys(("total", "healthy", "degraded", "unhealthy", "disabled"), int),
    "requests": {"in_flight": int, "waiting": int},
    "system": dict.fromkeys(("cpu_percent", "memory_percent", "memory_used_mb", "disk_percent")),
    "alerts": {"active": int, "critical": int, "warning": int},
}
TOTALS = {
    "timestamp": str,
    "providers": {
        "one": {
            "total_requests": int,
            "successful_requests": int,
            "failed_requests": int,
            "success_rate": (int, float),
            "avg_response_time": (int, float),
            "total_tokens": int,
        }
    },
    "summary": {
        "total_providers": int,
        "total_requests": int,
        "average_success_rate": (int, float),
    },
}


def _check(value: object, shape: object, at: str = "") -> None:
    """Exactly these members, of these types; None: a number or nothing known."""
    if isinstance(shape, dict):
        assert isinstance(value, dict), at
        assert value.keys() == shape.keys(), at
        for name, inner in shape.items():
            _check(value[name], inner, f"{at}.{name}")
    elif shape is None:
        assert value is None or isinstance(value, int | float), at
    else:
        assert isinstance(value, shape), at  # type: ignore[arg-type]  # any shape


@pytest.mark.parametrize("path", ["/health?detailed=true", "/api/v1/status"])
async def test_the_detailed_form_has_the_documented_members(
    balancer: RunningBalancer, agent: FakeAgent, path: str
) -> None:
    await balancer.chat()
    detailed = await balancer.get_json(balancer.url + path)
    _check(detailed, DETAILED)
    assert detailed["providers"] == {
        "total": 1,
        "healthy": 1,
        "degraded": 0,
        "unhealthy": 0,
        "disabled": 0,
    }
    assert detailed["performance"]["avg_response_time_ms"] > 0
    assert agent.name == "one"


async def test_the_brief_form_has_two_members_and_management_the_detailed_one(
    balancer: RunningBalancer,
) -> None:
    _check(await balancer.get_json(f"{balancer.url}/health"), {"status": str, "timestamp": str})
    _check(await balancer.get_json(f"{balancer.management_url}/health"), DETAILED)


async def test_totals_are_counted_once_a_request_and_told_as_json(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    url = f"{balancer.management_url}/metrics?format=json"
    before = await balancer.get_json(url)
    _check(before, TOTALS)
    assert before["providers"]["one"] == dict.fromkeys(before["providers"]["one"], 0)
    assert before["summary"] == {
        "total_providers": 1,
        "total_requests": 0,
        "average_success_rate": 0,
    }
    for _ in range(2):
        await balancer.chat()
    agent.script = Script(fail_with=RefusalCode.ENGINE_FAILED)
    assert (await balancer.chat()).status >= 500
    agent.script = HELD
    leaving = asyncio.ensure_future(balancer.chat())
    await agent.call()
    leaving.cancel()
    await eventually(lambda: balancer.is_at_rest, "the one that left is over")
    totals = await balancer.get_json(url)
    _check(totals, TOTALS)
    one = totals["providers"]["one"]
    assert one["successful_requests"] == 2
    assert one["failed_requests"] >= 1
    assert one["total_requests"] == 3 + one["failed_requests"]
    assert one["success_rate"] == pytest.approx(2 / (2 + one["failed_requests"]), abs=1e-4)
    assert one["total_tokens"] == 2 * (7 + 4)
    assert 0 < one["avg_response_time"] < 60
    assert totals["summary"]["average_success_rate"] == one["success_rate"]


@pytest.mark.parametrize(
    ("path", "accept", "content_type"),
    [
        ("/metrics", None, "text/plain"),
        ("/metrics", "application/json", "application/json"),
        ("/metrics", "text/html, application/json;q=0.5, */*", "text/plain"),
        ("/metrics?format=prometheus", "application/json", "text/plain"),
        ("/metrics/prometheus", "application/json", "text/plain"),
    ],
)
async def test_metrics_come_in_the_form_that_is_asked_for(
    balancer: RunningBalancer, path: str, accept: str | None, content_type: str
) -> None:
    headers = {} if accept is None else {"Accept": accept}
    async with balancer.session.get(balancer.url + path, headers=headers) as answer:
        assert (answer.status, answer.content_type) == (200, content_type)


async def test_an_unknown_form_of_metrics_is_refused_by_name(balancer: RunningBalancer) -> None:
    refused = await balancer.get_json(f"{balancer.url}/metrics?format=xml")
    assert refused["error"]["param"] == "format"


# --- models ---

MODEL = ServedModel(
    name="org/demo",
    aliases=("tiny",),
    context_tokens=2048,
    quantization="Q8_0",
    parameters=250,
    size_bytes=1000,
)


async def test_models_are_listed_for_clients_of_both_kinds_of_list(
    balancer: RunningBalancer,
) -> None:
    async with FakeAgent(balancer.management_port, model=MODEL):
        listed = await balancer.get_json(f"{balancer.management_url}/models")
        assert listed["object"] == "list"
        assert listed["models"] == [row["id"] for row in listed["data"]] == ["org/demo", "tiny"]
        row = listed["data"][0]
        assert (row["agents"], row["slots_total"], row["quantization"]) == (["one"], 4, "Q8_0")
        own = await balancer.get_json(f"{balancer.management_url}/v1/models")
        assert "models" not in own
        assert own == await balancer.get_json(f"{balancer.url}/v1/models")


@pytest.mark.parametrize("name", ["org%2Fdemo", "tiny", "tiny@1"])
async def test_a_model_s_metadata_has_what_its_agent_tells(
    balancer: RunningBalancer, name: str
) -> None:
    async with FakeAgent(balancer.management_port, model=MODEL):
        url = f"{balancer.management_url}/models/{name}/metadata"
        shown = await balancer.get_json(url)
        assert shown["chat_template"] == "{{ messages }}"
        assert (shown["chat_template_chars"], shown["tool_format"]) == (14, "hermes")
        assert (shown["bos_token"], shown["unknown"], shown["parameters"]) == (None, None, 250)


async def test_what_no_agent_tells_is_null_with_the_reason(
    balancer: RunningBalancer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{balancer.management_url}/models/demo/metadata"
    unable = Script(refuse_with=RefusalCode.UNSUPPORTED)
    async with FakeAgent(balancer.management_port, script=unable):
        shown = await balancer.get_json(url)
        assert (shown["id"], shown["chat_template"]) == ("demo", None)
        assert "by the script" in shown["unknown"]
    monkeypatch.setattr(models, "DESCRIBED_WITHIN_S", 0.01)
    monkeypatch.setattr("tests.support.fake_agent.toy_answer", lambda _: None)
    async with FakeAgent(balancer.management_port, script=Script()):
        shown = await balancer.get_json(url)
        assert shown["chat_template"] is None
        assert shown["unknown"]


async def test_metadata_of_a_model_that_nobody_serves_is_not_found(
    balancer: RunningBalancer,
) -> None:
    error = (await balancer.get_json(f"{balancer.management_url}/models/no/metadata"))["error"]
    assert error["code"] == "model_not_found"


# --- requests ---


async def test_a_request_s_timeline_shows_its_move(balancer: RunningBalancer) -> None:
    async with FakeAgent(balancer.management_port, script=HELD) as dying:
        running = asyncio.ensure_future(balancer.chat())
        call = await dying.call()
        await dying.tokens(call, "Hello")
        url = f"{balancer.management_url}/requests"
        (row,) = (await balancer.get_json(url))["data"]
        timeline_url = f"{url}/{row['id']}/timeline"
        await eventually(lambda: balancer.app.wiring.dispatcher.generating()["one"], "it decodes")
        shown = await balancer.get_json(timeline_url)
        phases = [phase["phase"] for phase in shown["phases"]]
        assert phases == ["waited", "prefilled", "decoded"]
        assert shown["phases"][-1]["end_ms"] is shown["outcome"] is None
        async with FakeAgent(balancer.management_port, name="two"):
            dying.kill()
            assert (await running).status == 200
            shown = await balancer.get_json(timeline_url)
    story = [(phase["phase"], phase["agent"], phase["reason"]) for phase in shown["phases"]]
    assert story[-3:] == [
        ("moved", None, "link_lost"),
        ("prefilled", "two", None),
        ("decoded", "two", None),
    ]
    assert (shown["agent"], shown["outcome"]) == ("two", "stop")
    assert sum(shown["totals_ms"].values()) <= shown["total_ms"] + 1


async def test_what_is_over_is_listed_the_last_to_end_first(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    ids = [(await balancer.chat()).headers["X-Paddler-Request-Id"] for _ in range(3)]
    agent.script = HELD
    running = asyncio.ensure_future(balancer.chat())
    call = await agent.call()
    url = f"{balancer.management_url}/requests/finished"
    rows = (await balancer.get_json(url))["data"]
    assert [row["id"] for row in rows] == ids[::-1]
    assert (rows[0]["agent"], rows[0]["outcome"], rows[0]["attempts"]) == ("one", "stop", 1)
    assert (rows[0]["model"], rows[0]["completion_tokens"]) == ("demo", 3)
    assert [row["id"] for row in (await balancer.get_json(f"{url}?last=1"))["data"]] == ids[-1:]
    assert (await balancer.get_json(f"{url}?last=0"))["error"]["param"] == "last"
    await agent.finish(call)
    await running


async def test_the_timeline_of_nobody_s_request_is_not_found(balancer: RunningBalancer) -> None:
    url = f"{balancer.management_url}/requests/req_1/timeline"
    assert (await balancer.get_json(url))["error"]["code"] == "resource_not_found"


# --- the playground's port ---


async def test_the_playground_s_page_may_call_its_own_port(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}]}
    url = f"{balancer.management_url}/v1/chat/completions"
    async with balancer.session.post(url, json=body) as answer:
        assert (await answer.json())["choices"][0]["message"]["content"] == "Hello, world"
    async with balancer.session.post(
        url, json=body, headers={"Origin": "http://evil.example"}
    ) as answer:
        assert answer.status == 403
    assert len(agent.started) == 1


# --- the log ---


@pytest.fixture
def root_level() -> Iterator[None]:
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)


@pytest.mark.usefixtures("root_level")
async def test_the_log_s_level_is_changed_while_the_balancer_runs(
    balancer: RunningBalancer,
) -> None:
    url = f"{balancer.management_url}/v1/log-level"
    for level in ("debug", "error"):
        async with balancer.session.put(url, json={"level": level}) as answer:
            assert await answer.json() == {"level": level}
        assert await balancer.get_json(url) == {"level": level}
        assert logging.getLogger("balancer").isEnabledFor(logging.DEBUG) == (level == "debug")


@pytest.mark.usefixtures("root_level")
@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"level": "loud"}, "level"),
        ({"level": 7}, "level"),
        ({}, "level"),
        ({"levle": "x"}, "levle"),
    ],
)
async def test_a_level_that_is_none_changes_nothing(
    balancer: RunningBalancer, body: dict[str, object], param: str
) -> None:
    url = f"{balancer.management_url}/log-level"
    before = await balancer.get_json(url)
    async with balancer.session.put(url, json=body) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]["param"] == param
    assert await balancer.get_json(url) == before
