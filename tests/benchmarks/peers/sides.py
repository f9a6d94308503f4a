"""The servers that are compared: how each is started with its best flags, pinned and addressed.

A side is written as its kind with more flags behind it: `paddler-py`, `llama-server -b 128`,
`llama-cpp-python`, or the URL of a server that runs already and is neither started nor pinned. A
name for the tables may stand before it: `small batches: llama-server -b 128`.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import psutil

from tests.benchmarks.peers.machine import (
    Cores,
    cpu_s,
    pin_process,
    pin_thread,
    threads_of,
)
from tests.benchmarks.peers.peer_programs import llama_cpp_server_environment, llama_server_program
from tests.benchmarks.peers.process import PROJECT, CannotStart, Server, answers
from tests.support.cluster import free_port

MODEL_NAME = "bench"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a cell asks of every server alike."""

    model: Path
    slots: int
    context: int
    """Tokens a slot."""
    threads: int = 1
    speculation: bool = False
    """Off wherever random weights would copy themselves: that is no workload."""
    embeddings: bool = False

    @property
    def context_of_all(self) -> int:
        return self.slots * self.context


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """What a server understands beyond OpenAI's API."""

    token_ids: bool
    """Prompts as token ids; else as the text that has the same tokens."""
    ignore_eos: bool
    model: str = MODEL_NAME
    greedy: Mapping[str, Any] = field(default_factory=lambda: {"temperature": 0})
    """What asks for the likeliest token, in the server's cheapest way."""
    schema_field: Literal["response_format", "json_schema"] = "response_format"
    """Where a text completion's JSON schema goes: OpenAI's field for chats, or llama.cpp's own."""


class Side(ABC):
    """A running server. `close` ends everything that was started for it."""

    dialect = Dialect(token_ids=True, ignore_eos=True)

    def __init__(self, cores: Cores) -> None:
        self.cores = cores
        self.servers: list[Server] = []
        self.host, self.port = "127.0.0.1", free_port()

    @abstractmethod
    def start(self, shape: Shape, flags: list[str], log_folder: Path) -> None:
        """Start and wait until it serves. Raises `CannotStart`."""

    @abstractmethod
    def pin(self) -> None:
        """Put the engine's threads on the engine's cores, everything else on the rest."""

    @abstractmethod
    def engine_cpu_s(self) -> float:
        """CPU seconds of what runs on the engine's cores so far."""

    def cpu_s(self) -> float:
        """CPU seconds of all of its processes so far."""
        pids = [s.pid for s in self.servers]
        pids += [child.pid for s in self.servers for child in s.children()]
        return sum(cpu_s(pid) for pid in pids)

    @property
    def commands(self) -> list[str]:
        """The command lines, with the project's and the user's folders left out."""
        return [_anonymous(shlex.join(server.command)) for server in self.servers]

    def check(self) -> None:
        """Raise `CannotStart` when a process died or lost its pinning since `pin`."""
        for server in self.servers:
            server.check_alive()

    def close(self) -> None:
        """End its processes, the last started first."""
        for server in reversed(self.servers):
            server.close()

    def _run(
        self, name: str, command: list[str], folder: Path, environment: dict[str, str] | None = None
    ) -> Server:
        server = Server(command, folder / f"{name}.log", environment)
        self.servers.append(server)
        return server


class Paddler(Side):
    """Balancer, agent and engine processes; clients talk to the balancer."""

    def start(self, shape: Shape, flags: list[str], log_folder: Path) -> None:
        management = free_port()
        program = [sys.executable, "-m", "paddler_py"]
        addresses = ["--inference", f"{self.host}:{self.port}"]
        addresses += ["--management", f"{self.host}:{management}"]
        quiet = ["--log-level", "warning"]
        patient = ["--queue-timeout", "3600"]  # the peers never give up on a waiting request
        command = [*program, "balancer", *addresses, *patient, *quiet]
        balancer = self._run("balancer", command, log_folder)
        balancer.wait_for(lambda: answers(f"http://{self.host}:{self.port}/health"), "health")
        agent = ["agent", "--balancer", f"{self.host}:{management}", "--model", str(shape.model)]
        agent += ["--alias", MODEL_NAME, "--name", "bench", *quiet]
        agent += ["--slots", str(shape.slots), "--context", str(shape.context_of_all)]
        agent += ["--threads", str(shape.threads), "--flash-attention", "on"]
        if "--speculation" in _agent_options():
            agent += ["--speculation", "auto" if shape.speculation else "off"]
        running = self._run("agent", [*program, *agent, *flags], log_folder)
        running.wait_for(lambda: _slots(f"http://{self.host}:{management}/agents") > 0, "slots")
        self._engine = self._find_engine()

    def pin(self) -> None:
        pin_process(self._engine.pid, self.cores.engine)

    def engine_cpu_s(self) -> float:
        return cpu_s(self._engine.pid)

    def check(self) -> None:
        super().check()
        if self._find_engine().pid != self._engine.pid:
            raise CannotStart("the engine was restarted meanwhile; see the agent's log")

    def _find_engine(self) -> psutil.Process:
        for child in self.servers[-1].children():
            if "agent.engine.worker" in " ".join(child.cmdline()):
                return child
        raise CannotStart("the agent has no engine process")


class LlamaServer(Side):
    """llama-server: HTTP threads and the computing one, its main thread, in one process.

    Its chain of samplers costs 35 us a token at 16k vocabulary even when greedy; a top_k of 1 alone
    gives the same token without.
    """

    dialect = Dialect(
        token_ids=True,
        ignore_eos=True,
        greedy={"temperature": 0, "samplers": ["top_k"], "top_k": 1},
        schema_field="json_schema",
    )

    def start(self, shape: Shape, flags: list[str], log_folder: Path) -> None:
        command = [str(llama_server_program()), "--model", str(shape.model), "--alias", MODEL_NAME]
        command += ["--host", self.host, "--port", str(self.port), "--no-ui", "-lv", "2"]
        command += ["-np", str(shape.slots), "-c", str(shape.context_of_all), "--no-kv-unified"]
        command += ["-t", str(shape.threads), "-tb", str(shape.threads), "-fa", "on"]
        if shape.embeddings:
            command += ["--embeddings", "--pooling", "mean"]
        server = self._run("llama-server", [*command, *flags], log_folder)
        server.wait_for(lambda: answers(f"http://{self.host}:{self.port}/health"), "health")

    def pin(self) -> None:
        pid = self.servers[0].pid
        for thread in threads_of(pid):
            pin_thread(thread, self.cores.engine if thread == pid else self.cores.rest)

    def engine_cpu_s(self) -> float:
        return cpu_s(self.servers[0].pid, self.servers[0].pid)


class LlamaCppPython(Side):
    """`python -m llama_cpp.server`: one pool of threads for HTTP and llama.cpp, on all cores."""

    dialect = Dialect(token_ids=False, ignore_eos=False)

    def start(self, shape: Shape, flags: list[str], log_folder: Path) -> None:
        command = [sys.executable, "-m", "llama_cpp.server", "--model", str(shape.model)]
        command += ["--model_alias", MODEL_NAME, "--host", self.host, "--port", str(self.port)]
        command += ["--n_ctx", str(shape.context), "--flash_attn", "true", "--verbose", "false"]
        command += ["--n_threads", str(shape.threads), "--n_threads_batch", str(shape.threads)]
        command += ["--interrupt_requests", "false", "--embedding", str(shape.embeddings).lower()]
        environment = llama_cpp_server_environment()
        server = self._run("llama-cpp-python", [*command, *flags], log_folder, environment)
        server.wait_for(lambda: answers(f"http://{self.host}:{self.port}/v1/models"), "models")

    def pin(self) -> None:
        pin_process(self.servers[0].pid, self.cores.every)

    def engine_cpu_s(self) -> float:
        return cpu_s(self.servers[0].pid)


class Elsewhere(Side):
    """A server that runs already, wherever; it must serve the cell's model. Nothing is pinned."""

    dialect = Dialect(token_ids=False, ignore_eos=False)

    def __init__(self, url: str, cores: Cores) -> None:
        super().__init__(cores)
        address = urlsplit(url)
        self.host, self.port = address.hostname or "127.0.0.1", address.port or 80

    def start(self, shape: Shape, flags: list[str], log_folder: Path) -> None:  # noqa: ARG002 (it runs already)
        try:
            url = f"http://{self.host}:{self.port}/v1/models"
            with urllib.request.urlopen(url, timeout=10) as answer:
                name = json.load(answer)["data"][0]["id"]
        except (OSError, ValueError, LookupError) as error:
            raise CannotStart(f"{url} names no model: {error!r}") from error
        self.dialect = replace(self.dialect, model=str(name))

    def pin(self) -> None:
        return

    def engine_cpu_s(self) -> float:
        return 0.0


KINDS: dict[str, Callable[[Cores], Side]] = {
    "paddler-py": Paddler,
    "llama-server": LlamaServer,
    "llama-cpp-python": LlamaCppPython,
}


def start_side(written: str, shape: Shape, cores: Cores, log_folder: Path) -> Side:
    """Start a side as it is written on the command line. Raises `CannotStart`."""
    kind, *flags = shlex.split(written)
    if kind.startswith(("http://", "https://")):
        side: Side = Elsewhere(kind, cores)
    elif kind in KINDS:
        side = KINDS[kind](cores)
    else:
        raise CannotStart(f"no such side: {kind}; there are {', '.join(KINDS)} and http://…")
    log_folder.mkdir(parents=True, exist_ok=True)
    try:
        side.start(shape, flags, log_folder)
        side.pin()
    except BaseException:
        side.close()
        raise
    return side


@cache
def _agent_options() -> str:
    command = [sys.executable, "-m", "paddler_py", "agent", "--help"]
    return subprocess.run(
        command, cwd=PROJECT, capture_output=True, text=True, check=True, timeout=60
    ).stdout


def _slots(url: str) -> int:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return sum(int(row["slots"]["total"]) for row in json.load(answer)["data"])


def _anonymous(text: str) -> str:
    return text.replace(str(PROJECT), ".").replace(str(Path.home()), "~")
