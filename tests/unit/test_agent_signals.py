"""What ends an agent: signals, and not those that its caller has it ignore."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

import pytest
import structlog

from agent import cli
from agent.settings import Settings, build


class FakeApp:
    """Runs until it is told to stop."""

    def __init__(self) -> None:
        self.stopped = asyncio.Event()

    def stop(self) -> None:
        self.stopped.set()


@pytest.fixture
def settings() -> Settings:
    return build({"balancer": "127.0.0.1:1", "model": "demo"}, {}, model_aliases=cli.MODEL_ALIASES)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_an_agent_drains_at_the_end_of_its_terminal_as_at_the_manager_s_word(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, number: signal.Signals
) -> None:
    async def run_agent(_settings: Settings, *, on_start: list[Any]) -> None:
        on_start.append(app := FakeApp())
        signal.raise_signal(number)
        async with asyncio.timeout(10):
            await app.stopped.wait()

    monkeypatch.setattr(cli, "run_agent", run_agent)
    before = signal.getsignal(number)
    try:
        signal.signal(number, signal.SIG_DFL)
        assert await cli._run(settings) is None
    finally:
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, before)


async def test_an_agent_under_nohup_goes_on_without_its_terminal(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    async def run_agent(_settings: Settings, *, on_start: list[Any]) -> None:
        on_start.append(app := FakeApp())
        signal.raise_signal(signal.SIGHUP)
        await asyncio.sleep(0)
        assert not app.stopped.is_set()

    monkeypatch.setattr(cli, "run_agent", run_agent)
    before = signal.getsignal(signal.SIGHUP)
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        assert await cli._run(settings) is None
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_a_signal_shows_everything_and_the_next_one_what_was_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    log = structlog.get_logger()
    log.info("used before")

    async def run_agent(_settings: Settings, *, on_start: list[Any]) -> None:
        del on_start
        for phrase in ("first", "second", "third"):
            log.debug(phrase)
            signal.raise_signal(signal.SIGUSR1)
            await asyncio.sleep(0.01)

    monkeypatch.setattr(cli, "run_agent", run_agent)
    before, handler = structlog.get_config(), signal.getsignal(signal.SIGUSR1)
    try:
        cli.configure_logging("info", "json")
        assert await cli._run(settings) is None
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR1)
        signal.signal(signal.SIGUSR1, handler)
        structlog.configure(**before)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line.get("after")) for line in lines] == [
        ("log level changed", "debug"),
        ("second", None),
        ("log level changed", "info"),
        ("log level changed", "debug"),
    ]
