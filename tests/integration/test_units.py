"""systemd's own opinion of the units in deploy/systemd."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.played_systemd import PROGRAMS, UNITS, Unit

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
