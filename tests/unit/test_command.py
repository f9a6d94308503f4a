"""The `paddler-py` command group."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

import paddler_py


def test_help_lists_every_command_and_imports_neither_side() -> None:
    program = (
        "import sys, paddler_py\n"
        "try: paddler_py.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'balancer', 'agent', 'protocol'} & set(sys.modules), 'imported'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for name in paddler_py.COMMANDS:
        assert name in done.stdout


def test_the_balancer_is_imported_without_llama_cpp_and_without_the_agent() -> None:
    program = (
        "import sys\n"
        "sys.modules['llama_cpp'] = sys.modules['agent'] = None\n"
        "import balancer.app, balancer.cli, balancer.terminal.demo, balancer.terminal.chat\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("command", "survives"), [("balancer", True), ("demo", False)])
def test_a_hangup_ends_no_balancer_that_is_still_being_imported(
    command: str, survives: bool
) -> None:
    program = (
        "import click, signal, paddler_py\n"
        f"paddler_py.COMMANDS[{command!r}] = ('paddler_py', 'completion', '', '')\n"
        f"paddler_py.main.get_command(click.Context(paddler_py.main), {command!r})\n"
        "signal.raise_signal(signal.SIGHUP)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == (0 if survives else -signal.SIGHUP)


def test_an_unknown_command_is_a_usage_error() -> None:
    result = CliRunner().invoke(paddler_py.main, ["serve"])
    assert result.exit_code == 2
    assert "No such command" in result.output


def test_a_missing_package_is_answered_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = ("not_installed_here.cli", "command", "agent", "")
    monkeypatch.setitem(paddler_py.COMMANDS, "agent", row)
    result = CliRunner().invoke(paddler_py.main, ["agent"])
    assert result.exit_code == 1
    assert "pip install 'paddler-py[agent]'" in result.output


def test_the_version_is_the_package_s() -> None:
    result = CliRunner().invoke(paddler_py.main, ["--version"])
    assert paddler_py.VERSION in result.output


def completed(words: str, *, shell: str = "fish") -> list[str]:
    """What a shell is offered for the last word; in bash and fish its own way of asking."""
    *_, last = words.split(" ")
    environment = {
        "_PADDLER_PY_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": last if shell == "fish" else str(words.count(" ")),
    }
    result = CliRunner().invoke(
        paddler_py.main, [], prog_name="paddler-py", env=environment, catch_exceptions=False
    )
    offered = [line for line in result.output.splitlines() if line]
    return [line.partition(",")[2].partition("\t")[0] for line in offered]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_script(shell: str) -> None:
    result = CliRunner().invoke(paddler_py.main, ["completion", shell])
    assert result.exit_code == 0
    assert f"_PADDLER_PY_COMPLETE={shell}_complete" in result.output


def test_a_shell_s_script_works_in_a_shell_that_has_set_nothing_up() -> None:
    zsh = CliRunner().invoke(paddler_py.main, ["completion", "zsh"]).output
    assert "autoload -Uz compinit && compinit }\n    compdef _paddler_py" in zsh


def test_fish_is_shown_the_whole_text_beside_a_word() -> None:
    fish = CliRunner().invoke(paddler_py.main, ["completion", "fish"]).output
    assert 'string split --max 1 "," $completion' in fish


def test_commands_options_and_values_are_completed() -> None:
    assert completed("paddler-py ") == list(paddler_py.COMMANDS)
    assert completed("paddler-py --v") == ["--version"]
    assert completed("paddler-py top --") == [
        "--url",
        "--key-file",
        "--ca-file",
        "--once",
        "--json",
        "--help",
    ]
    assert completed("paddler-py agent --fit o") == ["on", "off"]
    assert completed("paddler-py completion z") == ["zsh"]
    assert completed("paddler-py ch", shell="bash") == ["chat"]  # noqa: S604 (which one is completed for)


def test_completing_commands_imports_neither_side() -> None:
    program = (
        "import sys, paddler_py; paddler_py.main(prog_name='paddler-py', standalone_mode=False)"
    )
    check = "assert not {'balancer', 'agent', 'rich'} & set(sys.modules), 'imported'"
    environment = {
        **os.environ,
        "_PADDLER_PY_COMPLETE": "bash_complete",
        "COMP_WORDS": "paddler-py ",
        "COMP_CWORD": "1",
    }
    wrapped = f"try:\n import sys; exec({program!r})\nexcept SystemExit:\n {check}"
    done = subprocess.run(
        [sys.executable, "-c", wrapped],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "plain,demo" in done.stdout


def test_completing_a_command_whose_packages_are_missing_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = ("not_installed_here.cli", "command", "agent", "")
    monkeypatch.setitem(paddler_py.COMMANDS, "agent", row)
    assert "--model" not in completed("paddler-py agent --m")


def test_models_are_not_completed_where_no_server_answers() -> None:
    assert completed("paddler-py chat --url 127.0.0.1:9 --model ") == []
