"""deploy/install.sh and deploy/uninstall.sh on a folder that stands for a machine's `/`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import PROJECT, free_port, wait_until
from tests.support.played_systemctl import PlayedSystemctl

INSTALL, UNINSTALL = (str(PROJECT / "deploy" / name) for name in ("install.sh", "uninstall.sh"))
PYTHON = f"""#!/bin/sh
[ "$1 $2" != "-m venv" ] || set -- "$@" --without-pip
exec {sys.executable} "$@"
"""
"""A Python whose environments need no pip of their own: they find one in PYTHONPATH."""
SOURCES = (
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "paddler_py.py",
    "protocol",
    "balancer",
    "agent",
)
USERS = {"passwd", "group", "shadow", "gshadow"}
"""Kept by systemd-sysusers and userdel, with copies and a lock."""


@pytest.fixture(scope="module")
def packages() -> Iterator[str]:
    """A folder with what paddler-py needs and pip, but not paddler-py itself, for PYTHONPATH."""
    with tempfile.TemporaryDirectory(prefix="paddler-packages-") as folder:
        Path(folder).chmod(0o755)
        for entry in Path(sysconfig.get_path("purelib")).iterdir():
            if not entry.name.startswith(("paddler_py", "__editable__")):
                (Path(folder) / entry.name).symlink_to(entry)
        yield folder


@pytest.fixture
def machine() -> Iterator[Path]:
    """A machine's `/` before anything of ours is there."""
    with tempfile.TemporaryDirectory(prefix="paddler-machine-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        for name in ("etc/systemd/system", "opt", "var/lib", "var/cache", "run"):
            (root / name).mkdir(parents=True)
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (root / "etc/group").write_text("root:x:0:\nrender:x:107:\n")
        yield root


@pytest.fixture
def environment(packages: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**kept, "PYTHONPATH": packages}


def wheels_of(version: str, folder: Path) -> str:
    """A folder with the project's wheel, as of this version."""
    sources = folder / f"sources-{version}"
    sources.mkdir()
    for name in SOURCES:
        if (PROJECT / name).is_dir():
            shutil.copytree(
                PROJECT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(PROJECT / name, sources / name)
    settings = sources / "pyproject.toml"
    settings.write_text(settings.read_text().replace('version = "0.1.0"', f'version = "{version}"'))
    wheels = folder / version
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    subprocess.run(
        [*command, "--no-build-isolation", "--wheel-dir", str(wheels), str(sources)], check=True
    )
    return str(wheels)


def files_of(machine: Path) -> set[str]:
    """Everything there, but for what is of the accounts and of the running system."""
    return {
        str(path.relative_to(machine))
        for path in machine.rglob("*")
        if path.relative_to(machine).parts[0] != "run"
        and path.name.strip("-") not in USERS | {".pwd.lock"}
    }


class Machine:
    """The folder, its systemd, and a cluster on it."""

    def __init__(self, root: Path, environment: dict[str, str]) -> None:
        self.root = root
        self.inference, self.management = free_port(), free_port()
        self._environment = environment
        self.python = root / "run" / "python3"
        self.python.write_text(PYTHON)
        self.python.chmod(0o755)
        self.down: list[str] = []
        self.systemctl = PlayedSystemctl(
            root, python_path=environment["PYTHONPATH"], while_down=self._while_down
        )

    def run(self, *command: str) -> str:
        return self.systemctl.run([*command, "--root", str(self.root)], self._environment)

    def write_settings(self) -> None:
        """As an operator would, before the installation: it leaves them alone."""
        etc = self.root / "etc/paddler-py"
        etc.mkdir()
        settings = {
            "inference": f"127.0.0.1:{self.inference}",
            "management": f"127.0.0.1:{self.management}",
            "data_dir": f"{self.root}/var/lib/paddler-py/balancer",
        }
        (etc / "paddler.yaml").write_text(json.dumps(settings))

    def asked(self) -> str:
        """A chat's answer."""
        body = {"messages": [{"role": "user", "content": "What is 2 + 3?"}], "max_tokens": 8}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.inference}/v1/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            text: str = json.load(answer)["choices"][0]["message"]["content"]
        return text

    def agents(self) -> dict[str, str]:
        """The versions of those that are connected, by name."""
        url = f"http://127.0.0.1:{self.management}/agents"
        with urllib.request.urlopen(url, timeout=60) as answer:
            listed: Any = json.load(answer)
        return {row["name"].rpartition("-")[2]: row["version"] for row in listed["data"]}

    def _while_down(self, unit: str) -> None:
        self.down.append(unit)
        if "agent" in unit:
            assert self.asked()


@pytest.fixture
def site(machine: Path, environment: dict[str, str]) -> Iterator[Machine]:
    site = Machine(machine, environment)
    try:
        yield site
    finally:
        site.systemctl.close()


def test_services_come_up_are_upgraded_one_by_one_and_are_removed_without_a_trace(
    site: Machine, tmp_path: Path
) -> None:
    before = files_of(site.root)
    accounts = (site.root / "etc/passwd").read_text(), (site.root / "etc/group").read_text()
    site.write_settings()
    install = [INSTALL, "balancer", "agent", "one", "two", "--python", str(site.python)]
    address = ["--balancer", f"127.0.0.1:{site.management}", "--model", "demo"]
    old = ["--wheels", wheels_of("0.1.0", tmp_path)]
    assert "paddler.yaml is kept" in site.run(*install, *address, *old)
    services = [
        "paddler-agent@one.service",
        "paddler-agent@two.service",
        "paddler-balancer.service",
    ]
    assert sorted(site.systemctl.services) == services
    for service in site.systemctl.services.values():
        service.hears_line("READY=1")
    assert site.agents() == {"one": "0.1.0", "two": "0.1.0"}
    assert site.asked()

    upgrade = [INSTALL, "upgrade", "--python", str(site.python)]
    assert "here already" in site.run(*upgrade, *old)
    assert site.down == []

    site.run(*upgrade, "--wheels", wheels_of("0.1.1", tmp_path))
    assert site.down == services
    new = {"one": "0.1.1", "two": "0.1.1"}
    wait_until(lambda: site.agents() == new, what="both agents have found the new balancer")
    assert site.asked()
    (release,) = (site.root / "opt/paddler-py/releases").iterdir()
    assert release.name.startswith("0.1.1-")

    site.run(UNINSTALL)
    assert site.systemctl.services == {}
    assert files_of(site.root) == before
    assert (
        (site.root / "etc/passwd").read_text(),
        (site.root / "etc/group").read_text(),
    ) == accounts
