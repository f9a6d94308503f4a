"""How `paddler-py balancer` ends where it cannot serve."""

from __future__ import annotations

import socket

import pytest
from click.testing import CliRunner, Result

from balancer.cli import balancer

ELSEWHERE = "192.0.2.1:8080"
"""Of documentation (RFC 5737): nobody has it."""


def ended(inference: str) -> Result:
    arguments = ["--insecure", "--inference", inference, "--management", "127.0.0.1:0"]
    return CliRunner().invoke(balancer, arguments)


def test_an_address_that_somebody_has_is_worth_another_try() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = ended(f"127.0.0.1:{taken.getsockname()[1]}")
    assert result.exit_code == 1
    assert "is another balancer running?" in result.output


def test_an_address_that_no_interface_has_yet_is_worth_another_try() -> None:
    result = ended(ELSEWHERE)
    assert result.exit_code == 1
    assert "no interface of this machine has it now" in result.output


def test_a_port_that_may_not_be_taken_is_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "create_server", denied)
    result = ended("127.0.0.1:80")
    assert result.exit_code == 2
    assert "CAP_NET_BIND_SERVICE" in result.output
