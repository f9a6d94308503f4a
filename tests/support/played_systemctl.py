"""Plays `systemctl` for a script: starts, stops and restarts the units that are installed in a
folder which stands for `/`, and leaves to the real one what only touches files."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from tests.support.played_systemd import Service, Unit, started

_PATIENCE_S = 120.0
_ASKS_THE_TEST = """#!{python}
import os, socket, sys
if sys.argv[1] in ("--version", "--quiet"):
    os.execv("{real}", ["{real}", "--root={machine}", *sys.argv[1:]])
door = socket.socket(socket.AF_UNIX)
door.connect("{door}")
door.sendall("\\n".join(sys.argv[1:]).encode())
door.shutdown(socket.SHUT_WR)
code, _, text = door.makefile().read().partition(" ")
print(text, end="")
sys.exit(int(code))
"""


class PlayedSystemctl:
    """`run` a script with it. `while_down` is called while a service is being restarted."""

    def __init__(
        self, machine: Path, *, python_path: str, while_down: Callable[[str], None]
    ) -> None:
        self._machine = machine
        self._python_path = python_path
        self._while_down = while_down
        self._opened: dict[str, AbstractContextManager[Service]] = {}
        self._starts = 0
        self.services: dict[str, Service] = {}
        self.asked: list[str] = []
        """The words of every call, in order."""
        (machine / "run" / "systemd" / "system").mkdir(parents=True)
        self._bin = machine / "run" / "bin"
        self._bin.mkdir()
        self._write_program()
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(str(machine / "run" / "systemctl"))
        self._door.listen()
        self._door.settimeout(0.1)

    def _write_program(self) -> None:
        real = shutil.which("systemctl")
        assert real is not None
        text = _ASKS_THE_TEST.format(
            python=sys.executable,
            real=real,
            machine=self._machine,
            door=self._machine / "run" / "systemctl",
        )
        program = self._bin / "systemctl"
        program.write_text(text)
        program.chmod(0o755)

    def run(self, command: list[str], environment: dict[str, str]) -> str:
        """What the script said; `AssertionError` with it where it failed."""
        path = f"{self._bin}:{environment['PATH']}"
        with (
            (self._machine / "run" / "said").open("w+") as said,
            subprocess.Popen(
                command, env={**environment, "PATH": path}, stdout=said, stderr=said
            ) as script,
        ):
            while script.poll() is None:
                self._answer_next()
            said.seek(0)
            text = said.read()
        assert script.returncode == 0, text
        return text

    def _answer_next(self) -> None:
        try:
            caller, _ = self._door.accept()
        except TimeoutError:
            return
        with caller:
            caller.settimeout(_PATIENCE_S)
            words = caller.makefile().read().split("\n")
            self.asked.append(" ".join(words))
            caller.sendall(self._answer(*words).encode())

    def _answer(self, verb: str, *words: str) -> str:
        unit = words[-1] if words else ""
        match verb:
            case "start":
                self.start(unit)
            case "restart":
                self.stop(unit)
                self._while_down(unit)
                self.start(unit).hears_line("READY=1")
            case "stop":
                self.stop(unit)
            case "show" if "--property=MainPID" in words:
                return f"0 {self.services[unit].process.pid}"
            case "show":
                return "0 active" if unit in self.services else "0 inactive"
            case _:
                assert verb in {"daemon-reload", "reset-failed"}, verb
        return "0 "

    def start(self, unit: str) -> Service:
        """Start it as its installed file says."""
        name, _, instance = unit.removesuffix(".service").partition("@")
        file = f"{name}@.service" if instance else unit
        self._starts += 1
        opened = started(
            Unit(self._machine / "etc/systemd/system" / file, self._machine, instance=instance),
            self._machine / "run" / f"{self._starts}",
            python_path=self._python_path,
        )
        self.services[unit] = opened.__enter__()
        self._opened[unit] = opened
        return self.services[unit]

    def stop(self, unit: str) -> None:
        """Stop it, and see it end well."""
        service = self.services.pop(unit)
        service.terminate()
        assert service.ended() == 0, service.journal
        self._opened.pop(unit).__exit__(None, None, None)

    def close(self) -> None:
        """End everything."""
        self._door.close()
        for opened in self._opened.values():
            opened.__exit__(None, None, None)
