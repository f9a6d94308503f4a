"""The same model behind our HTTP API, behind our agent link alone, and behind llama-server.

Every one of them computes with one thread, weights and cache in F32 and without flash attention, so
that what differs is more than rounding or nothing.
"""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks.peers.peer_programs import llama_server_program
from tests.benchmarks.peers.process import Server, answers
from tests.support.cluster import EXACT_FLAGS, Cluster, Program, free_port
from tests.support.fake_balancer import FakeBalancer, fake_balancer

ASK_S = 60.0
MODEL = "demo"
"""What the agents of `Cluster` call theirs."""


class Refused(Exception):
    """An answer that is no 200; the message has its status and body."""


class Site:
    """Answers of one server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        """The decoded answer to a POST. Raises `Refused`."""
        request = urllib.request.Request(self.url + path, data=json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=ASK_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            raise Refused(f"{path}: {error.code} {text[:500]}") from error


@contextmanager
def ours(model: Path, folder: Path, *flags: str, wait: bool = True) -> Iterator[Site]:
    """A balancer and an agent with this model; where there are no slots to `wait` for, its first
    request waits instead."""
    cluster = Cluster(folder)
    try:
        cluster.start_balancer("--log-level", "warning")
        cluster.start_agent("one", *flags, model=model, wait=wait)
        yield Site(cluster.inference_url)
    finally:
        cluster.close()


@asynccontextmanager
async def our_agent(model: Path, folder: Path, *flags: str) -> AsyncIterator[FakeBalancer]:
    """An agent with this model, at the other end of its link: for what HTTP does not offer."""
    async with fake_balancer() as balancer:
        there = f"{balancer.address.host}:{balancer.address.port}"
        arguments = ["agent", "--balancer", there, "--model", str(model)]
        arguments += ["--alias", MODEL, *EXACT_FLAGS, *flags]
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        program = await asyncio.to_thread(Program, "agent", arguments, folder / "link-agent.log")
        try:
            await balancer.until(lambda: _is_ready(balancer), "the agent is ready")
            yield balancer
        finally:
            await asyncio.to_thread(program.end)


@contextmanager
def theirs(model: Path, folder: Path, *flags: str) -> Iterator[Site]:
    """llama-server with this model, once it serves. Raises `CannotStart`."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [str(llama_server_program()), "--model", str(model), "--alias", MODEL]
    command += ["--host", "127.0.0.1", "--port", str(port), "--no-ui", "-lv", "2"]
    command += ["-np", "1", "-t", "1", "-tb", "1", "-ngl", "0", "-fit", "off"]
    command += ["-fa", "off", "-ctk", "f32", "-ctv", "f32", "--no-cache-prompt"]
    server = Server([*command, *flags], folder / "llama-server.log")
    try:
        url = f"http://127.0.0.1:{port}"
        server.wait_for(lambda: answers(f"{url}/health"), "health")
        yield Site(url)
    finally:
        server.close()


def _is_ready(balancer: FakeBalancer) -> bool:
    beat = balancer.last_heartbeat()
    return beat is not None and beat.status.queries_total > 0
