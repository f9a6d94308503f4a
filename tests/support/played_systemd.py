"""Plays systemd for the units in deploy/systemd: what a unit file says is started as it is said
there, by an unprivileged user, with the sockets and limits that systemd would give.

What is played: ExecStart, Environment, EnvironmentFile, WorkingDirectory, StateDirectory and
CacheDirectory, the specifiers %i and %H, WatchdogSec, NotifyAccess=main, UMask, KillMode=mixed, the
journal's stream; NoNewPrivileges, MemoryDenyWriteExecute, SystemCallFilter and
RestrictAddressFamilies (confined.py). What is not: namespaces, what the file system is made to look
like, devices.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

PROJECT = Path(__file__).parents[2]
UNITS = PROJECT / "deploy" / "systemd"
CONFINED = str(PROJECT / "tests" / "support" / "confined.py")
PROGRAMS = "/opt/paddler-py/current/bin"
PATIENCE_S = 60.0
_CREDENTIALS = struct.Struct("3i")
_UNITS_S = {"": 1, "s": 1, "min": 60}

Said = tuple[str, ...]
"""The lines of one message."""


class Unit:
    """One unit file, for a folder that stands for `/`. `programs`: where the installed ones are to
    be looked for, if not in that folder."""

    def __init__(
        self, file: Path, machine: Path, *, instance: str = "", programs: Path | None = None
    ) -> None:
        moved = {
            "%i": instance,
            "%H": socket.gethostname(),
            PROGRAMS: str(programs or f"{machine}{PROGRAMS}"),
            "/etc/": f"{machine}/etc/",
            "/var/": f"{machine}/var/",
        }
        text = file.read_text()
        for old, new in moved.items():
            text = text.replace(old, new)
        self._lines = [line for line in text.splitlines() if re.match(r"[A-Za-z]+=", line)]
        self._var = machine / "var"

    def all_of(self, key: str) -> list[str]:
        """The values of a key, in order."""
        return [line.partition("=")[2] for line in self._lines if line.startswith(f"{key}=")]

    def one_of(self, key: str) -> str:
        """The value of a key that stands once."""
        (value,) = self.all_of(key)
        return value

    def seconds_of(self, key: str) -> float:
        """A time span."""
        match = re.fullmatch(r"([0-9.]+)(s|min|)", self.one_of(key))
        assert match is not None
        return float(match[1]) * _UNITS_S[match[2]]

    @property
    def command(self) -> list[str]:
        """What ExecStart says."""
        return shlex.split(self.one_of("ExecStart"))

    @property
    def folders(self) -> list[Path]:
        """What systemd makes for the service's user."""
        states = [self._var / "lib" / name for name in self.all_of("StateDirectory")]
        return states + [self._var / "cache" / name for name in self.all_of("CacheDirectory")]

    def environment(self) -> dict[str, str]:
        """What Environment and, after it, EnvironmentFile say."""
        pairs = [pair for value in self.all_of("Environment") for pair in shlex.split(value)]
        for value in self.all_of("EnvironmentFile"):
            file = Path(value.removeprefix("-"))
            if file.exists() or not value.startswith("-"):
                lines = [line.strip() for line in file.read_text().splitlines()]
                pairs += [line for line in lines if line and not line.startswith("#")]
        return dict(pair.split("=", 1) for pair in pairs)


class Service:
    """A unit's process and what it said. Everything waits under a bound."""

    def __init__(self, unit: Unit, folder: Path, python_path: str) -> None:
        self.unit = unit
        self._python_path = python_path
        self.watchdog_s = unit.seconds_of("WatchdogSec")
        self._folder = folder
        self._door = _door(folder / "notify")
        self._log = (folder / "journal").open("w+b")
        self.said: list[Said] = []
        try:
            self.process = self._start()
        except BaseException:
            self._close_files()
            raise

    def _start(self) -> subprocess.Popen[bytes]:
        for folder in self.unit.folders:
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o777)
        filters = self._folder / "filters"
        filters.write_text("\n".join(allowed_calls(self.unit)))
        facts = os.fstat(self._log.fileno())
        return subprocess.Popen(
            [*_unprivileged(), sys.executable, "-I", CONFINED, str(filters), *self.unit.command],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            cwd=self.unit.one_of("WorkingDirectory"),
            umask=int(self.unit.one_of("UMask"), 8),
            process_group=0,
            env={
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "LANG": "C.UTF-8",
                "HOME": "/nonexistent",
                "PYTHONPATH": self._python_path,
                **self.unit.environment(),
                "NOTIFY_SOCKET": str(self._folder / "notify"),
                "WATCHDOG_USEC": str(round(self.watchdog_s * 1_000_000)),
                "JOURNAL_STREAM": f"{facts.st_dev}:{facts.st_ino}",
            },
        )

    @property
    def journal(self) -> str:
        """What it logged."""
        return (self._folder / "journal").read_text()

    def hears(self, is_it: Callable[[Said], bool], what: str) -> Said:
        """The next message that is meant; those before it are heard, too."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            said = self.next_message(1.0)
            if said is not None and is_it(said):
                return said
            if said is None and self.process.poll() is not None:
                break
        raise AssertionError(f"never said: {what}\n{self.said[-5:]}\n{self.journal[-3000:]}")

    def hears_line(self, line: str) -> Said:
        """The next message that has the line, or a line that begins so if it ends with `…`."""
        if line.endswith("…"):
            return self.hears(lambda said: any(one.startswith(line[:-1]) for one in said), line)
        return self.hears(lambda said: line in said, line)

    def next_message(self, within_s: float) -> Said | None:
        """The next one of the main process (NotifyAccess=main), or None."""
        self._door.settimeout(within_s)
        try:
            data, attached, _, _ = self._door.recvmsg(8192, socket.CMSG_SPACE(_CREDENTIALS.size))
        except TimeoutError:
            return None
        ((_, _, credentials),) = attached
        sender, _, _ = _CREDENTIALS.unpack(credentials)
        assert sender == self.process.pid, "said by a process that systemd does not listen to"
        said = tuple(data.decode().split("\n"))
        self.said.append(said)
        return said

    def forget(self) -> None:
        """Drop what was said until now."""
        while self.next_message(0.001) is not None:
            pass
        self.said.clear()

    def terminate(self) -> None:
        """Stop, as KillMode=mixed does: SIGTERM for the main process alone."""
        self.process.terminate()

    def ended(self) -> int:
        """The exit code, once it has ended."""
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        """End all of it, whatever state it is in."""
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(PATIENCE_S)
        self._close_files()

    def _close_files(self) -> None:
        self._door.close()
        self._log.close()


@contextmanager
def started(unit: Unit, folder: Path, *, python_path: str = str(PROJECT)) -> Iterator[Service]:
    """The unit's service, gone afterwards; its socket and journal are in the folder, a new one."""
    folder.mkdir()
    folder.chmod(0o755)
    service = Service(unit, folder, python_path)
    try:
        yield service
    finally:
        service.close()


def _door(path: Path) -> socket.socket:
    door = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    door.bind(str(path))
    path.chmod(0o777)
    return door


def _unprivileged() -> list[str]:
    """In front of a command, where the tests run as root: another user, without capabilities; but
    for reading, where the interpreter or the project is in a folder of root's own."""
    if os.getuid() != 0:
        return []
    user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    if all(
        _is_open(Path(path)) for path in (PROJECT, sys.prefix, os.path.realpath(sys.executable))
    ):
        return [*user, "--bounding-set=-all"]
    reading = "+dac_read_search"
    return [*user, f"--inh-caps=-all,{reading}", f"--ambient-caps={reading}"]


def _is_open(path: Path) -> bool:
    return all(folder.stat().st_mode & 0o005 == 0o005 for folder in (path, *path.parents))


def allowed_calls(unit: Unit) -> list[str]:
    """The system calls that a unit's filters let through, as `confined.py` takes them."""
    sets = _call_sets()
    allowed = set(_expanded(["@default"], sets))
    for value in unit.all_of("SystemCallFilter"):
        names = set(_expanded(value.removeprefix("~").split(), sets))
        allowed = allowed - names if value.startswith("~") else allowed | names
    families = unit.one_of("RestrictAddressFamilies").split()
    sockets = [f"socket {int(getattr(socket, family))}" for family in families]
    return sorted(allowed - {"socket"}) + sockets


def _call_sets() -> dict[str, list[str]]:
    """systemd's own groups of system calls."""
    shown = subprocess.run(
        ["systemd-analyze", "--no-pager", "syscall-filter"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    ).stdout
    blocks = [block.split("\n") for block in shown.split("\n\n")]
    return {
        name: [line.strip() for line in lines if line.strip() and "#" not in line]
        for name, *lines in blocks
    }


def _expanded(names: list[str], sets: Mapping[str, list[str]]) -> Iterator[str]:
    for name in names:
        if name.startswith("@"):
            yield from _expanded(sets[name], sets)
        else:
            yield name
