"""/config over HTTP, and what a reload changes of a balancer that runs."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from balancer.config_file.configuration import Configuration
from balancer.config_file.load import Sources
from balancer.config_file.rules import RULES
from balancer.observability.logging import level_now
from protocol.hangup import remember_hangup
from tests.support.documented import faults
from tests.support.fake_agent import FakeAgent, Script
from tests.support.running_balancer import Answer, RunningBalancer, eventually, running_balancer

PORTS = "inference: 127.0.0.1:0\nmanagement: 127.0.0.1:0\nheartbeat_interval_s: 0.5\n"
HELD = Script(is_held=True)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "paddler.yaml"
    write(path, "")
    return path


@pytest.fixture
def same_log_level() -> Iterator[None]:
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


@pytest.fixture
async def balancer(file: Path, same_log_level: None) -> AsyncIterator[RunningBalancer]:  # noqa: ARG001 (only its effect)
    configuration = Configuration(Sources(config=file, flags={"max_json_depth": 32}))
    async with running_balancer(configuration=configuration) as balancer:
        yield balancer


def write(file: Path, settings: str) -> None:
    """Put a whole file in place at once."""
    whole = file.with_suffix(".new")
    whole.write_text(PORTS + settings)
    whole.replace(file)


async def ask(balancer: RunningBalancer, method: str, path: str) -> Answer:
    """A question on the management port, answered as the document says."""
    url = balancer.management_url + path
    async with balancer.session.request(method, url) as answer:
        body = await answer.read()
        mistakes = faults(
            "management",
            method,
            path.removeprefix("/v1"),
            status=answer.status,
            content_type=answer.content_type,
            body=body,
        )
        assert mistakes == []
        return Answer(status=answer.status, headers=answer.headers, body=body)


async def reload(balancer: RunningBalancer, path: str = "/config/reload") -> Any:
    answer = await ask(balancer, "POST", path)
    assert answer.status == 200, answer.body
    return answer.json()


async def test_the_status_has_the_promised_shape(balancer: RunningBalancer) -> None:
    async with FakeAgent(balancer.management_port):
        assert (await ask(balancer, "GET", "/config/status")).json() == {
            "status": "valid",
            "config_version": 1,
            "last_loaded": ANY,
            "load_time_ms": ANY,
            "file_size_bytes": len(PORTS),
            "providers_configured": 1,
            "validation_errors": [],
            "restart_needed": [],
            "content_is_logged": False,
            "cache_status": {"enabled": True, "hit_rate": None, "entries": 0},
            "cache_isolated": False,
        }


async def test_a_reload_has_the_promised_shape_under_both_names(
    balancer: RunningBalancer, file: Path
) -> None:
    write(file, "queue_timeout_s: 7\n")
    assert await reload(balancer) == {
        "success": True,
        "message": "changed: queue_timeout_s",
        "reload_time_ms": ANY,
        "config_version": 2,
        "changes_detected": True,
        "changes": [{"name": "queue_timeout_s", "before": 60.0, "after": 7.0}],
        "restart_needed": [],
        "validation_errors": [],
    }
    again = await reload(balancer, "/v1/config/reload")
    assert (again["success"], again["changes_detected"], again["config_version"]) == (
        True,
        False,
        2,
    )


async def test_the_settings_in_force_are_shown_with_their_origins(
    balancer: RunningBalancer, file: Path
) -> None:
    shown = (await ask(balancer, "GET", "/config")).json()
    assert list(shown["settings"]) == list(RULES)
    assert shown["files"] == [str(file)]
    details = {row["name"]: row for row in shown["details"]}
    assert details["heartbeat_interval_s"] == {
        "name": "heartbeat_interval_s",
        "value": 0.5,
        "default": 5.0,
        "description": ANY,
        "allowed": "0.05..300 seconds",
        "origin": f"{file}, line 3",
        "origin_kind": "file",
        "line": 3,
        "applies": "reload",
        "variable": "PADDLER_HEARTBEAT_INTERVAL_S",
        "flag": "--heartbeat-interval",
    }
    assert (details["max_json_depth"]["value"], details["max_json_depth"]["origin_kind"]) == (
        32,
        "flag",
    )
    assert details["inference"]["applies"] == "restart"
    assert details["log_level"]["origin"] == "default"


async def test_a_broken_reload_is_a_400_and_leaves_everything_as_it_was(
    balancer: RunningBalancer, file: Path
) -> None:
    before = (await ask(balancer, "GET", "/config")).json()
    write(file, "max_body_bytes: 2048\npolicy: fastest\n")
    refused = await ask(balancer, "POST", "/config/reload")
    assert refused.status == 400
    body = refused.json()
    assert (body["success"], body["changes_detected"], body["config_version"]) == (False, False, 1)
    (fault,) = body["validation_errors"]
    assert (fault["field"], fault["line"], fault["source"]) == ("policy", 5, str(file))
    assert body["error"]["param"] == "policy"
    assert fault["message"] in body["message"]
    assert (await ask(balancer, "GET", "/config")).json() == before
    status = (await ask(balancer, "GET", "/config/status")).json()
    assert (status["status"], status["validation_errors"]) == ("invalid", [fault])
    async with FakeAgent(balancer.management_port):
        assert (await balancer.chat("x" * 4096)).status == 200


async def test_what_takes_a_restart_is_named(balancer: RunningBalancer, file: Path) -> None:
    write(file, "data_dir: /srv\nmax_body_bytes: 2048\n")
    refused = await ask(balancer, "POST", "/config/reload")
    assert (refused.status, refused.error["code"]) == (400, "restart_needed")
    assert refused.json()["restart_needed"] == ["data_dir"]
    assert balancer.app.wiring.settings.max_body_bytes > 2048
    assert (await ask(balancer, "GET", "/config/status")).json()["status"] == "restart_needed"


async def test_limits_on_requests_change_while_it_runs(
    balancer: RunningBalancer, file: Path
) -> None:
    async with FakeAgent(balancer.management_port):
        assert (await balancer.chat("x" * 4096)).status == 200
        assert (await balancer.post("/v1/chat/completions", {}, {"Host": "ai.test"})).status == 403
        write(file, "max_body_bytes: 2048\nallowed_hosts: [ai.test]\n")
        await reload(balancer)
        assert (await balancer.chat("x" * 4096)).status == 413
        assert (await balancer.post("/v1/chat/completions", {}, {"Host": "ai.test"})).status == 400


async def test_waiting_is_switched_off_while_it_runs(balancer: RunningBalancer, file: Path) -> None:
    async with (
        FakeAgent(balancer.management_port, slots=1, script=HELD) as agent,
        asyncio.TaskGroup() as tasks,
    ):
        first = tasks.create_task(balancer.chat())
        call = await agent.call()
        second = tasks.create_task(balancer.chat("waits on"))
        await eventually(lambda: balancer.app.wiring.dispatcher.waiting == 1, "one waits")
        write(file, "queue_timeout_s: 0\n")
        await reload(balancer)
        assert (await balancer.chat()).status == 503
        await agent.finish(call)
        await agent.finish(await agent.call())
        assert [(await task).status for task in (first, second)] == [200, 200]


async def test_the_level_of_the_log_changes_while_it_runs(
    balancer: RunningBalancer, file: Path
) -> None:
    write(file, "log_level: error\n")
    await reload(balancer)
    assert logging.getLogger().level == logging.ERROR


async def test_a_level_that_was_changed_by_hand_stays_until_the_setting_changes(
    balancer: RunningBalancer, file: Path
) -> None:
    url = f"{balancer.management_url}/log-level"
    async with balancer.session.put(url, json={"level": "error"}) as answer:
        assert answer.status == 200
    write(file, "max_waiting: 5\n")
    assert (await reload(balancer))["changes"]
    assert level_now() == "error"
    write(file, "max_waiting: 5\nlog_level: warning\n")
    await reload(balancer)
    assert level_now() == "warning"


async def test_stored_responses_are_bounded_anew(balancer: RunningBalancer, file: Path) -> None:
    async with FakeAgent(balancer.management_port):
        asked = {"model": "demo", "input": "hi"}
        kept = (await balancer.post("/v1/responses", asked)).json()["id"]
        write(file, "max_stored_responses: 0\n")
        await reload(balancer)
        async with balancer.session.get(f"{balancer.url}/v1/responses/{kept}") as answer:
            assert answer.status == 404


async def test_images_come_from_the_hosts_of_the_reload(
    balancer: RunningBalancer, file: Path
) -> None:
    assert not balancer.app.wiring.images.is_open
    write(file, "image_hosts: [cdn.example.com]\n")
    await reload(balancer)
    assert balancer.app.wiring.images.is_open


async def test_a_hangup_reloads(balancer: RunningBalancer, file: Path) -> None:
    write(file, "max_waiting: 7\n")
    os.kill(os.getpid(), signal.SIGHUP)
    await eventually(lambda: balancer.app.wiring.settings.max_waiting == 7, "the reload")


async def test_a_hangup_that_came_before_the_loop_ran_reloads(file: Path) -> None:
    before = signal.getsignal(signal.SIGHUP)
    try:
        remember_hangup()
        configuration = Configuration(Sources(config=file))
        started = configuration.last
        write(file, "max_waiting: 7\n")
        signal.raise_signal(signal.SIGHUP)
        async with running_balancer(configuration=configuration) as balancer:
            await eventually(lambda: configuration.last is not started, "the reload")
            assert balancer.app.wiring.settings.max_waiting == 7
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_a_signal_has_everything_logged_and_the_next_one_what_is_set(
    balancer: RunningBalancer,
) -> None:
    for level in ("debug", balancer.app.wiring.settings.log_level):
        os.kill(os.getpid(), signal.SIGUSR1)
        await eventually(lambda level=level: level_now() == level, "the level")  # type: ignore[misc]  # default binds


async def test_a_page_of_another_origin_reloads_nothing(balancer: RunningBalancer) -> None:
    url = f"{balancer.management_url}/config/reload"
    async with balancer.session.post(url, headers={"Origin": "http://evil.test"}) as answer:
        assert answer.status == 403
