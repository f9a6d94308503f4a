"""The units' own command lines, as services of a service manager that the test plays."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.cluster import free_port, wait_until
from tests.support.played_systemd import UNITS, Service, Unit, started


@pytest.fixture
def machine() -> Iterator[Path]:
    """A folder that stands for `/`, open to the services' user."""
    with tempfile.TemporaryDirectory(prefix="paddler-machine-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


class Site:
    """A balancer and an agent on one machine, each started when the test says so."""

    def __init__(self, machine: Path, stack: ExitStack) -> None:
        self._machine = machine
        self._stack = stack
        self._programs = Path(sys.executable).parent
        self.inference, self.management = free_port(), free_port()
        settings = {
            "inference": f"127.0.0.1:{self.inference}",
            "management": f"127.0.0.1:{self.management}",
            "heartbeat_interval_s": 0.5,
        }
        self.etc = machine / "etc" / "paddler-py"
        self.etc.mkdir(parents=True)
        (self.etc / "paddler.yaml").write_text(json.dumps(settings))
        (self.etc / "agent-gpu0.env").write_text(
            f"PADDLER_AGENT_BALANCER=127.0.0.1:{self.management}\n"
            "PADDLER_AGENT_MODEL=demo\nPADDLER_AGENT_THREADS=1\n"
        )

    def balancer(self) -> Service:
        return self._started("paddler-balancer.service")

    def agent(self) -> Service:
        return self._started("paddler-agent@.service", instance="gpu0")

    def _started(self, name: str, instance: str = "") -> Service:
        unit = Unit(UNITS / name, self._machine, instance=instance, programs=self._programs)
        return self._stack.enter_context(started(unit, self._machine / name))

    def asked(self) -> Asked:
        """A short chat that is under way."""
        asked = Asked(f"http://127.0.0.1:{self.inference}/v1/chat/completions")
        self._stack.callback(asked.thread.join)
        return asked

    @property
    def in_flight(self) -> int:
        """Requests that the balancer works on."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.management}/requests") as answer:
            rows: Any = json.load(answer)
        return len(rows["data"])


class Asked:
    """A request on a thread of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.text: str | None = None
        self.thread = threading.Thread(target=self._ask)
        self.thread.start()

    def _ask(self) -> None:
        schema = {
            "name": "sum",
            "schema": {"type": "integer"},
        }  # so that grammars have to work, too
        body = {
            "messages": [{"role": "user", "content": "What is 2 + 3?"}],
            "max_tokens": 8,
            "response_format": {"type": "json_schema", "json_schema": schema},
        }
        request = urllib.request.Request(
            self._url, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            self.text = json.load(answer)["choices"][0]["message"]["content"]


@pytest.fixture
def site(machine: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(machine, stack)


@contextmanager
def held(process_id: int) -> Iterator[None]:
    """The process stands still meanwhile."""
    os.kill(process_id, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process_id, signal.SIGCONT)


def engine_of(agent: Service) -> int:
    (engine,) = [
        child.pid
        for child in psutil.Process(agent.process.pid).children()
        if "agent.engine.worker" in child.cmdline()
    ]
    return engine


def test_a_balancer_is_ready_once_both_ports_are_open_and_well_while_its_loop_turns(
    site: Site,
) -> None:
    balancer = site.balancer()
    balancer.hears_line("READY=1")
    for port in (site.inference, site.management):
        socket.create_connection(("127.0.0.1", port)).close()
    assert "STATUS=agents: 0; 0 requests run, 0 wait" in balancer.said[0]
    balancer.hears_line("WATCHDOG=1")
    with held(balancer.process.pid):
        balancer.forget()
        assert balancer.next_message(1.0) is None
    balancer.hears_line("WATCHDOG=1")

    check, hang_up = balancer.unit.all_of("ExecReload")
    assert "config check" in check
    assert hang_up == "/bin/kill -HUP $MAINPID"
    balancer.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "trigger=signal" in balancer.journal, what="the settings are read again")
    balancer.hears_line("WATCHDOG=1")
    assert all(line.startswith("<6>") for line in balancer.journal.splitlines())
    assert "balancer listens" in balancer.journal


def test_an_agent_is_ready_once_it_can_be_asked_and_well_while_its_engine_works(
    site: Site,
) -> None:
    agent = site.agent()
    assert "EXTEND_TIMEOUT_USEC=15000000" in agent.hears_line("STATUS=loading the model…")
    agent.hears_line("STATUS=paddler-demo: 0 of 4 slots busy; no link to the balancer, dialling…")
    assert not any("READY=1" in said for said in agent.said)
    site.balancer().hears_line("READY=1")
    agent.hears_line("READY=1")

    with held(engine_of(agent)):
        asked = site.asked()
        silent = agent.hears(
            lambda said: "STATUS=the engine has not" in said[-1], "the engine's silence"
        )
        assert "WATCHDOG=1" not in silent
        assert agent.next_message(1.0) is None
    agent.hears_line("WATCHDOG=1")
    asked.thread.join()
    assert asked.text


def test_services_that_are_told_to_stop_finish_what_they_have_begun(site: Site) -> None:
    balancer, agent = site.balancer(), site.agent()
    agent.hears_line("READY=1")
    with held(engine_of(agent)):
        asked = site.asked()
        wait_until(lambda: site.in_flight or None, what="the request is under way")
        for service in (balancer, agent):
            service.terminate()
            assert "EXTEND_TIMEOUT_USEC=15000000" in service.hears_line("STOPPING=1")
            service.hears_line("EXTEND_TIMEOUT_USEC=15000000")
    asked.thread.join()
    assert asked.text
    assert (agent.ended(), balancer.ended()) == (0, 0)
    assert all(line.startswith("<") for line in agent.journal.splitlines())


def test_an_agent_whose_settings_are_wrong_ends_with_a_code_that_is_not_tried_again(
    site: Site,
) -> None:
    file = site.etc / "agent-gpu0.env"
    file.write_text("PADDLER_AGENT_BALANCER=127.0.0.1:1\nPADDLER_AGENT_MODEL=nowhere.gguf\n")
    agent = site.agent()
    assert str(agent.ended()) in agent.unit.one_of("RestartPreventExitStatus").split()
