"""What the agent's log must never hold."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest
import structlog

from agent.cli import configure_logging
from agent.killable.environment import for_children
from agent.settings import LogFormat


@pytest.fixture
def restored_logging() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.mark.usefixtures("restored_logging")
@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_fault_is_logged_with_its_traceback_and_without_anybodys_prompt(
    capsys: pytest.CaptureFixture[str], log_format: LogFormat
) -> None:
    def prepare(prompt: str) -> None:
        raise RuntimeError(f"a defect at {len(prompt)} characters")

    configure_logging("info", log_format)
    try:
        prepare("my secret")
    except RuntimeError:
        structlog.get_logger().exception("preparing failed", call=1)
    logged = capsys.readouterr().err
    assert "a defect at 9 characters" in logged
    assert "in prepare" in logged
    assert "locals" not in logged
    assert "'my secret'" not in logged


@pytest.mark.usefixtures("restored_logging")
def test_an_issue_stands_below_its_line_where_people_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    issue = "The engine process was ended by SIGKILL. " * 5 + "Use fewer --slots."
    configure_logging("info", "console")
    structlog.get_logger().warning("issue raised", code="engine_died", issue=issue)
    first, *below = capsys.readouterr().err.splitlines()
    assert "code=engine_died" in first
    assert "SIGKILL" not in first
    assert " ".join(line.removeprefix("    ") for line in below) == issue
    assert max(map(len, below)) <= 100


@pytest.mark.usefixtures("restored_logging")
def test_an_issue_is_one_value_where_machines_read(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")
    structlog.get_logger().warning("issue raised", code="engine_died", issue="a. b.")
    assert json.loads(capsys.readouterr().err)["issue"] == "a. b."


class Terminal(io.StringIO):
    """Standard error as it is in a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("restored_logging")
def test_a_terminal_shows_how_far_a_model_is_loaded_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    configure_logging("info", "console")
    for percent in (0, 50, 100):
        structlog.get_logger("some module").info("loading model", percent=percent)
    structlog.get_logger("another").info("model ready")
    structlog.get_logger().info("registered")
    written = terminal.getvalue()
    assert written.count("\n") == 2
    assert [part[-24:].split(" [")[-1] for part in written.split("\r\x1b[K")[:3]] == [
        "...............] 0%",
        "#######........] 50%",
        "###############] 100%",
    ]
    assert "model ready" in written.rpartition("\r\x1b[K")[2]


@pytest.mark.usefixtures("restored_logging")
def test_a_log_that_is_no_terminal_has_a_line_for_each_step_of_loading(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("info", "console")
    for percent in (0, 50):
        structlog.get_logger().info("loading model", percent=percent)
    logged = capsys.readouterr().err
    assert logged.count("\n") == 2
    assert "\r" not in logged
    assert "percent=50" in logged


@pytest.mark.usefixtures("restored_logging")
@pytest.mark.parametrize("log_format", ["console", "json"])
def test_neither_credentials_nor_what_an_error_quotes_are_logged(
    capsys: pytest.CaptureFixture[str], log_format: LogFormat
) -> None:
    configure_logging("info", log_format)
    word = "qzcanaryqz"
    log = structlog.get_logger()
    log.warning("no link", reason=f"http://me:{word}@host said Bearer {word}", all=(f"pk_{word}",))
    try:
        float(word)
    except ValueError:
        log.exception("preparing failed")
    logged = capsys.readouterr().err
    assert "could not convert string to float: '...'" in logged
    assert word not in logged


def test_the_agent_s_own_processes_do_not_get_its_token() -> None:
    theirs = for_children({"PADDLER_AGENT_TOKEN": "secret", "HOME": "/root", "PYTHONPATH": "/x"})
    assert "secret" not in theirs.values()
    assert theirs["HOME"] == "/root"
    assert theirs["PYTHONPATH"].endswith(":/x")
    assert ":" not in for_children({})["PYTHONPATH"]
