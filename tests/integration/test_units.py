"""systemd's own opinion of the units in deploy/systemd."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.played_systemd import CONFINED, PROGRAMS, UNITS, Unit, allowed_calls

MOST_EXPOSURE = 2.5
FILES = sorted(UNITS.glob("*.service"))
DRAIN_S = 30.0
"""The default of both drain timeouts."""


def analysed(*arguments: str) -> str:
    done = subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_there_is_a_unit_for_each_daemon() -> None:
    assert [file.name for file in FILES] == ["paddler-agent@.service", "paddler-balancer.service"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_systemd_has_nothing_to_say_against_a_unit(file: Path, tmp_path: Path) -> None:
    program = str(Path(sys.executable).parent / "paddler-py")
    unit = tmp_path / file.name
    unit.write_text(file.read_text().replace(f"{PROGRAMS}/paddler-py", program))
    assert analysed("verify", "--man=no", str(unit)) == ""


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_unit_exposes_little(file: Path) -> None:
    told = analysed("security", "--offline=true", "--no-pager", str(file))
    level = re.search(r"Overall exposure level for \S+: ([0-9.]+)", told)
    assert level is not None
    assert float(level[1]) <= MOST_EXPOSURE


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_unit_gives_more_time_to_stop_than_a_drain_takes(file: Path, tmp_path: Path) -> None:
    assert Unit(file, tmp_path).seconds_of("TimeoutStopSec") > DRAIN_S


@pytest.mark.parametrize(
    "forbidden",
    [
        "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
        "import os; os.chown('.', 1, 1)",
        "import os; os.setuid(1)",
        "import mmap; mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)",
    ],
)
def test_what_tests_run_as_a_unit_is_held_to_the_unit_s_filters(
    forbidden: str, tmp_path: Path
) -> None:
    filters = tmp_path / "filters"
    filters.write_text("\n".join(allowed_calls(Unit(FILES[0], tmp_path))))
    command = [sys.executable, "-I", CONFINED, str(filters), sys.executable, "-c"]
    tried = f"try:\n    {forbidden}\nexcept PermissionError:\n    print('forbidden')"
    done = subprocess.run([*command, tried], capture_output=True, text=True, check=True)
    assert done.stdout == "forbidden\n"
