"""What is said to systemd, heard by a socket of the test's own."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from protocol.service_manager import ServiceManager


@pytest.fixture
def notified(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket a service manager listens at."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        door.bind(str(tmp_path / "notify"))
        door.setblocking(False)
        yield door


def heard(door: socket.socket) -> list[str]:
    return door.recv(4096).decode().split("\n")


def manager(door: socket.socket, **more: str) -> ServiceManager:
    return ServiceManager.of({"NOTIFY_SOCKET": door.getsockname(), **more})


def test_everything_that_is_said_at_once_is_one_message(notified: socket.socket) -> None:
    assert manager(notified).say(
        ready=True, well=True, stopping=True, extend_s=1.5, status="all is well"
    )
    assert heard(notified) == [
        "READY=1",
        "STOPPING=1",
        "STATUS=all is well",
        "WATCHDOG=1",
        "EXTEND_TIMEOUT_USEC=1500000",
    ]


def test_only_what_is_said_is_said(notified: socket.socket) -> None:
    manager(notified).say(well=True)
    assert heard(notified) == ["WATCHDOG=1"]


def test_a_status_stays_on_its_line_and_short(notified: socket.socket) -> None:
    manager(notified).say(status="one\nREADY=1 " + "x" * 10_000)
    (line,) = heard(notified)
    assert line.startswith("STATUS=one READY=1 xxx")
    assert len(line) < 600


def test_saying_nothing_sends_nothing(notified: socket.socket) -> None:
    assert not manager(notified).say()
    with pytest.raises(BlockingIOError):
        notified.recv(1)


def test_an_abstract_address_is_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        door.bind("")  # the kernel chooses an abstract one
        name = door.getsockname().decode()
        ServiceManager.of({"NOTIFY_SOCKET": "@" + name[1:]}).say(ready=True)
        assert heard(door) == ["READY=1"]


@pytest.mark.parametrize("address", ["", "vsock:2:1", "relative"])
def test_who_was_started_by_nobody_speaks_to_nobody(address: str) -> None:
    nobody = ServiceManager.of({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"})
    assert not nobody.is_there
    assert nobody.watchdog_s is None
    assert not nobody.say(ready=True)


def test_a_manager_that_is_gone_harms_nobody(tmp_path: Path) -> None:
    gone = ServiceManager.of({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    assert gone.is_there
    assert not gone.say(ready=True)


def test_a_manager_that_does_not_read_is_not_waited_for(notified: socket.socket) -> None:
    said = manager(notified)
    while said.say(status="x" * 400):
        pass
    assert len(heard(notified)) == 1


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "9" * 400}, None),
    ],
)
def test_the_watchdog_is_the_manager_s_and_for_this_process(
    notified: socket.socket, variables: dict[str, str], seconds: float | None
) -> None:
    assert manager(notified, **variables).watchdog_s == seconds


def test_what_is_said_once_reaches_a_manager_that_was_busy_then(notified: socket.socket) -> None:
    others, said = manager(notified), manager(notified)
    while others.say(well=True):
        pass
    assert not said.say(ready=True, well=True, extend_s=15, status="serves")
    assert not said.say(status="is busy")
    with suppress(BlockingIOError):
        while True:
            notified.recv(4096)
    assert said.say(well=True)
    assert heard(notified) == ["READY=1", "STATUS=is busy", "WATCHDOG=1"]
    assert said.say(well=True)
    assert heard(notified) == ["WATCHDOG=1"]
