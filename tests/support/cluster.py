"""Real processes for end-to-end tests: a balancer and agents on free ports, nothing left behind.

Every process writes to a log file of its own; the logs of a failed test are kept under
`out/test-logs/`. Waiting is always for a condition, bounded by a generous deadline.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil

PROJECT = Path(__file__).resolve().parents[2]
DEMO_MODEL = PROJECT / "agent" / "demo_model" / "paddler-demo.gguf"
PATIENCE_S = 60.0
EXACT_FLAGS = ("--cache-type", "f32", "--flash-attention", "off", "--threads", "1")

_T = TypeVar("_T")


def free_port() -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(
    condition: Callable[[], _T | None], *, what: str, patience_s: float = PATIENCE_S
) -> _T:
    """The condition's first true value; `AssertionError` naming `what` when patience ends."""
    deadline = time.monotonic() + patience_s
    while True:
        if value := condition():
            return value
        assert time.monotonic() < deadline, f"still waiting after {patience_s:.0f} s for: {what}"
        time.sleep(0.02)


async def eventually(
    condition: Callable[[], _T | None], *, what: str, patience_s: float = PATIENCE_S
) -> _T:
    """`wait_until` for coroutines: the loop goes on meanwhile. The condition must be quick."""
    deadline = time.monotonic() + patience_s
    while True:
        if value := condition():
            return value
        assert time.monotonic() < deadline, f"still waiting after {patience_s:.0f} s for: {what}"
        await asyncio.sleep(0.01)


class Program:
    """One `paddler-py` process with its log."""

    def __init__(self, name: str, arguments: list[str], log_path: Path) -> None:
        self.name = name
        self.log_path = log_path
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PADDLER_")}
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "paddler_py", *arguments],
                cwd=PROJECT,
                env={**environment, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid = self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def log(self) -> str:
        """Everything it wrote so far."""
        return self.log_path.read_text(errors="replace")

    def children(self) -> list[psutil.Process]:
        """Its living descendants, for example an agent's engine."""
        try:
            return [p for p in psutil.Process(self.pid).children(recursive=True) if _lives(p)]
        except psutil.NoSuchProcess:
            return []

    def engine(self) -> psutil.Process:
        """The agent's engine process."""

        def find() -> psutil.Process | None:
            for child in self.children():
                if "agent.engine.worker" in _command_line(child):
                    return child
            return None

        return wait_until(find, what=f"the engine process of {self.name}")

    def send(self, number: signal.Signals) -> None:
        """A signal to this process alone."""
        self._process.send_signal(number)

    def wait(self, patience_s: float = PATIENCE_S) -> int:
        """The exit code, once it ended."""
        return self._process.wait(patience_s)

    def end(self) -> None:
        """Ask it to stop, insist after a while, and take its descendants along."""
        descendants = self.children()
        if self.exit_code is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
        _, alive = psutil.wait_procs(descendants, timeout=5)
        for process in alive:
            process.kill()


class Cluster:
    """A balancer and its agents. `close` ends every process it started."""

    def __init__(self, log_folder: Path, *, operator_key: str = "", agent_token: str = "") -> None:
        """With credentials the balancer has to be started with a file that knows them."""
        self.log_folder = log_folder
        log_folder.mkdir(parents=True, exist_ok=True)
        self._headers = {"Authorization": f"Bearer {operator_key}"} if operator_key else {}
        self._agent_flags: tuple[str, ...] = ()
        if agent_token:
            token_file = log_folder / "agents-token"
            token_file.write_text(agent_token)
            self._agent_flags = ("--token-file", str(token_file))
        self.programs: list[Program] = []
        self.inference_port = free_port()
        self.management_port = free_port()

    @property
    def inference_url(self) -> str:
        """Where clients go."""
        return f"http://127.0.0.1:{self.inference_port}"

    @property
    def management_url(self) -> str:
        """Where operators and agents go."""
        return f"http://127.0.0.1:{self.management_port}"

    def start_balancer(self, *flags: str) -> Program:
        """A balancer on this cluster's ports, once it answers."""
        program = self._start(
            "balancer",
            "balancer",
            "--inference",
            f"127.0.0.1:{self.inference_port}",
            "--management",
            f"127.0.0.1:{self.management_port}",
            *flags,
        )
        wait_until(lambda: self._answers(program), what="the balancer answers /health")
        return program

    def start_agent(
        self, name: str = "one", *flags: str, model: Path = DEMO_MODEL, wait: bool = True
    ) -> Program:
        """An agent with one thread; by default once the balancer may use its slots."""
        arguments = ["agent", "--balancer", f"127.0.0.1:{self.management_port}", "--name", name]
        arguments += ["--model", str(model), "--alias", "demo", *EXACT_FLAGS]
        arguments += [*self._agent_flags, *flags]
        program = self._start(f"agent-{name}", *arguments)
        if wait:
            wait_until(lambda: self._serves(program, name), what=f"agent {name} serves")
        return program

    def agents(self) -> dict[str, dict[str, Any]]:
        """`GET /agents`, by name."""
        return {row["name"]: row for row in self.get_json(f"{self.management_url}/agents")["data"]}

    def metric(self, series: str) -> float:
        """A Prometheus series' value, summed over its label sets; 0 when it has none yet."""
        text = self.get(f"{self.management_url}/metrics").decode()
        rows = (line for line in text.splitlines() if not line.startswith("#"))
        return sum(
            float(line.rpartition(" ")[2])
            for line in rows
            if line.partition(" ")[0].partition("{")[0] == series
        )

    def get(self, url: str) -> bytes:
        """The body of a GET; raises `urllib.error.URLError` as urllib does."""
        request = urllib.request.Request(url, headers=self._headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            body: bytes = answer.read()
            return body

    def get_json(self, url: str) -> Any:
        """The decoded body of a GET."""
        return json.loads(self.get(url))

    def operate(self, path: str) -> None:
        """POST to an operator's route; raises `urllib.error.URLError` as urllib does."""
        url = self.management_url + path
        request = urllib.request.Request(url, headers=self._headers, method="POST")
        with urllib.request.urlopen(request, timeout=10):
            pass

    def close(self) -> None:
        """End agents first, so that the balancer's log ends tidily."""
        for program in reversed(self.programs):
            program.end()

    def keep_logs(self, folder: Path) -> None:
        """Copy the logs where a person finds them after a failed test."""
        shutil.copytree(self.log_folder, folder, dirs_exist_ok=True)

    def _start(self, name: str, *arguments: str) -> Program:
        program = Program(name, list(arguments), self.log_folder / f"{name}.log")
        self.programs.append(program)
        return program

    def _answers(self, program: Program) -> bool:
        assert program.exit_code is None, f"{program.name} ended:\n{program.log()}"
        try:
            self.get(f"{self.inference_url}/health")
        except (urllib.error.URLError, ConnectionError):
            return False
        return True

    def _serves(self, program: Program, name: str) -> bool:
        assert program.exit_code is None, f"{program.name} ended:\n{program.log()}"
        row = self.agents().get(name)
        return row is not None and row["slots"]["total"] > 0


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""
