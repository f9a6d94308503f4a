"""A server process that cannot outlive its benchmark, with its log."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

PROJECT = Path(__file__).resolve().parents[3]
START_PATIENCE_S = 120.0
STOP_PATIENCE_S = 10.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


class CannotStart(Exception):
    """A side did not come up; the message has the end of its log."""


class Server:
    """One process. The kernel kills it when the benchmark dies, however that dies."""

    def __init__(
        self, command: Sequence[str], log_path: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.command = list(command)
        self.log_path = log_path
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PADDLER_", "LLAMA_"))}
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=PROJECT,
                env={**kept, "PYTHONUNBUFFERED": "1", **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,
            )
        self.pid = self._process.pid

    def children(self) -> list[psutil.Process]:
        """Its living descendants."""
        try:
            return list(psutil.Process(self.pid).children(recursive=True))
        except psutil.NoSuchProcess:
            return []

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Poll until it holds. Raises `CannotStart` when the process ends or patience does."""
        deadline = time.monotonic() + START_PATIENCE_S
        while not _holds(condition):
            if self._process.poll() is not None:
                raise CannotStart(f"it ended with {self._process.returncode}: {self.log_end()}")
            if time.monotonic() > deadline:
                raise CannotStart(f"not after {START_PATIENCE_S:.0f} s: {what}; {self.log_end()}")
            time.sleep(0.05)

    def log_end(self, lines: int = 6) -> str:
        """The last lines of its log, in one."""
        kept = self.log_path.read_text(errors="replace").strip().splitlines()[-lines:]
        return " | ".join(line.strip() for line in kept)

    def check_alive(self) -> None:
        """Raise `CannotStart` when it died meanwhile."""
        if self._process.poll() is not None:
            raise CannotStart(f"it died with {self._process.returncode}: {self.log_end()}")

    def close(self) -> None:
        """Ask it to stop, insist after a while; its descendants go with it."""
        descendants = self.children()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_PATIENCE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(STOP_PATIENCE_S)
        _, alive = psutil.wait_procs(descendants, timeout=5)
        for process in alive:
            process.kill()


def answers(url: str) -> bool:
    """Whether a GET is answered with 200."""
    with urllib.request.urlopen(url, timeout=5) as answer:
        return bool(answer.status == 200)


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except (OSError, urllib.error.URLError):
        return False


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
