"""What a thousand waiting clients cost: memory for each, and how fast those that leave are gone.

`python -m tests.benchmarks.bench_crowd`; some ten seconds. The balancer is a process of its own;
clients and an agent of eight slots (a fake one over the real link) are in this one. Memory is the
balancer's resident set. A heap that has grown stays, so three figures are given: what a waiting
client adds to a heap that never held so many (a slope, from the first 100 to all), the same again
when as many came before, and what the whole first crowd added to a balancer that just started.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp
import psutil

from tests.benchmarks.outcome import keep
from tests.benchmarks.peers.machine import facts
from tests.support.cluster import Cluster, eventually
from tests.support.fake_agent import FakeAgent, Script
from tests.support.leaving_clients import chat_request

SLOTS = 8
FIRST = 100
QUESTION = {
    "model": "demo",
    "messages": [{"role": "user", "content": "How do you do? " * 8}],
    "stream": True,
}
PATIENCE_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """What was seen; memory in kB (1000 bytes) a waiting client, times in milliseconds."""

    clients: int
    left: int
    lost: int
    """Clients that stayed, and did not get their whole answer."""
    slope_kb: float
    again_kb: float
    from_start_kb: float
    let_in_ms: float
    """Until all of a crowd wait or run."""
    freed_ms: float
    """From the first client's leaving until `GET /requests` lists none of those that left."""
    freed_cpu_ms: float
    """The balancer's CPU time for that, looking included; to 10 ms."""
    look_ms: float
    """How long one `GET /requests` took meanwhile, so how exact that is."""


class _Client(asyncio.Protocol):
    """One streaming client; `over` is set when its answer is whole, or its connection ended."""

    def __init__(self) -> None:
        self._data = bytearray()
        self.over = asyncio.Event()
        self.transport: asyncio.Transport | None = None

    @property
    def has_all(self) -> bool:
        """Whether the answer came whole."""
        return b'"Hello"' in self._data and b"data: [DONE]" in self._data

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(chat_request(QUESTION))

    def data_received(self, data: bytes) -> None:
        self._data += data
        if b"data: [DONE]" in self._data:
            self.leave()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.over.set()

    def leave(self) -> None:
        """Without a word."""
        if self.transport is not None:
            self.transport.abort()


class _Agent:
    """Holds the calls it was given until it may answer them."""

    def __init__(self, port: int) -> None:
        self._agent = FakeAgent(port, slots=SLOTS, script=Script(is_held=True))
        self.may_answer = asyncio.Event()

    async def run(self) -> None:
        """Answer call after call, for as long as it may."""
        async with self._agent as agent:
            while True:
                await self.may_answer.wait()
                call = await agent.call()
                if self.may_answer.is_set():
                    await agent.tokens(call, "Hello")
                    await agent.finish(call)


class _Measurement:
    """One balancer, and the crowds that come to it."""

    def __init__(self, cluster: Cluster, pid: int, session: aiohttp.ClientSession) -> None:
        self._cluster = cluster
        self._process = psutil.Process(pid)
        self._session = session
        self.agent = _Agent(cluster.management_port)
        self.look_s: list[float] = []

    @property
    def rss_kb(self) -> float:
        """Of the balancer."""
        return float(self._process.memory_info().rss) / 1000

    @property
    def cpu_s(self) -> float:
        """Of the balancer."""
        times = self._process.cpu_times()
        return float(times.user + times.system)

    async def come(self, count: int, *, all_in_all: int) -> list[_Client]:
        """So many clients, once the balancer knows of all that are there."""
        loop, port = asyncio.get_running_loop(), self._cluster.inference_port
        clients = []
        for _ in range(count):
            _, client = await loop.create_connection(_Client, "127.0.0.1", port)
            clients.append(client)
        await self.until_listed(all_in_all)
        return clients

    async def until_listed(self, count: int) -> None:
        """Until `GET /requests` has so many rows."""
        async with asyncio.timeout(PATIENCE_S):
            while await self._listed() != count:
                pass

    async def serve(self, clients: Iterable[_Client]) -> int:
        """Let everybody have an answer; how many did not get a whole one."""
        self.agent.may_answer.set()
        staying = list(clients)
        async with asyncio.timeout(PATIENCE_S):
            for client in staying:
                await client.over.wait()
        self.agent.may_answer.clear()
        await self.until_listed(0)
        return sum(not client.has_all for client in staying)

    async def _listed(self) -> int:
        started = time.perf_counter()
        async with self._session.get("/requests") as answer:
            rows = len((await answer.json())["data"])
        self.look_s.append(time.perf_counter() - started)
        return rows


async def measure(folder: Path, clients: int) -> Crowd:
    """A small crowd to warm up, then two large ones; half of the second leaves at once."""
    cluster = Cluster(folder)
    config = folder / "paddler.yaml"
    bounds = {"max_waiting": clients, "max_waiting_of_tenant": clients, "queue_timeout_s": 600}
    config.write_text("".join(f"{name}: {value}\n" for name, value in bounds.items()))
    try:
        balancer = await asyncio.to_thread(
            cluster.start_balancer, "--config", str(config), "--log-level", "warning"
        )
        async with aiohttp.ClientSession(cluster.management_url) as session:
            measurement = _Measurement(cluster, balancer.pid, session)
            agent = asyncio.create_task(measurement.agent.run())
            try:
                await eventually(lambda: cluster.agents(), what="the agent is there")
                return await _crowds(measurement, clients)
            finally:
                agent.cancel()
                with suppress(asyncio.CancelledError):
                    await agent
    finally:
        await asyncio.to_thread(cluster.close)


async def _crowds(measurement: _Measurement, clients: int) -> Crowd:
    at_start_kb = measurement.rss_kb
    lost = await measurement.serve(await measurement.come(FIRST, all_in_all=FIRST))
    some = await measurement.come(FIRST, all_in_all=FIRST)
    some_kb = measurement.rss_kb
    others = await measurement.come(clients - FIRST, all_in_all=clients)
    all_kb = measurement.rss_kb
    lost += await measurement.serve([*some, *others])

    empty_kb, started = measurement.rss_kb, time.perf_counter()
    crowd = await measurement.come(clients, all_in_all=clients)
    let_in_s, again_kb = time.perf_counter() - started, measurement.rss_kb
    leaving, staying = crowd[::2], crowd[1::2]
    measurement.look_s.clear()
    started, cpu_s = time.perf_counter(), measurement.cpu_s
    for client in leaving:
        client.leave()
    await measurement.until_listed(len(staying))
    freed_s, look_s = time.perf_counter() - started, measurement.look_s[-1]
    freed_cpu_s = measurement.cpu_s - cpu_s
    lost += await measurement.serve(staying)
    waiting = clients - SLOTS
    return Crowd(
        clients=clients,
        left=len(leaving),
        lost=lost,
        slope_kb=round((all_kb - some_kb) / (clients - FIRST), 2),
        again_kb=round((again_kb - empty_kb) / waiting, 2),
        from_start_kb=round((all_kb - at_start_kb) / waiting, 2),
        let_in_ms=round(1000 * let_in_s, 1),
        freed_ms=round(1000 * freed_s, 1),
        freed_cpu_ms=round(1000 * freed_cpu_s),
        look_ms=round(1000 * look_s, 1),
    )


def table(crowd: Crowd) -> str:
    """The figures as text."""
    rows = [
        (f"of {crowd.clients} clients at {SLOTS} slots, lost", f"{crowd.lost}"),
        ("memory of a waiting one: slope of a first crowd", f"{crowd.slope_kb:.1f} kB"),
        ("    of a second crowd, in the heap of the first", f"{crowd.again_kb:.1f} kB"),
        ("    of the first, growth of a fresh heap and all", f"{crowd.from_start_kb:.1f} kB"),
        ("until all wait or run", f"{crowd.let_in_ms:.0f} ms"),
        (f"{crowd.left} leave at once: until none is listed", f"{crowd.freed_ms:.0f} ms"),
        ("    the balancer's CPU time for it", f"{crowd.freed_cpu_ms:.0f} ms"),
        ("    one look at the list", f"{crowd.look_ms:.0f} ms"),
    ]
    return "\n".join(f"{what:<52}{value:>12}" for what, value in rows)


def main(arguments: list[str] | None = None) -> None:
    """Measure once, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=1000)
    given = parser.parse_args([] if arguments is None else arguments)
    with tempfile.TemporaryDirectory() as folder:
        crowd = asyncio.run(measure(Path(folder), given.clients))
    keep(
        "crowd", {"benchmark": "crowd", "figures": asdict(crowd), "machine": facts()}, table(crowd)
    )


if __name__ == "__main__":
    main(sys.argv[1:])
