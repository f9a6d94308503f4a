"""The `paddler-py` command group."""

from __future__ import annotations

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
