"""What open dashboards cost the balancer: 64 agents, 500 live requests, 50 readers of two sockets.

The balancer is a process of its own, the agents are scripted, the readers read in this process. CPU
time of the balancer with readers and without, turn about; under two minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import uvloop

from tests.support.cluster import Cluster
from tests.support.fake_agent import FakeAgent, Script

AGENTS, SLOTS = 64, 8
SOCKETS = ("/ws/control", "/ws/metrics")
TALK = Script(pieces=("word ",) * 2000, gap_s=0.5)


class Readers:
    """Dashboards that read everything, and count it."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url
        self.messages = 0
        self.read_bytes = 0

    async def read(self, path: str) -> None:
        """One socket, until cancelled."""
        async with self._session.ws_connect(self._url + path, max_msg_size=0) as socket:
            async for message in socket:
                self.messages += 1
                self.read_bytes += len(message.data)


async def _share_of_a_core(balancer: psutil.Process, seconds: float) -> float:
    """Of CPU time that the balancer takes, in percent."""
    before, started_s = balancer.cpu_times(), time.monotonic()
    await asyncio.sleep(seconds)
    after, took_s = balancer.cpu_times(), time.monotonic() - started_s
    return 100 * (after.user + after.system - before.user - before.system) / took_s


async def _ask(session: aiohttp.ClientSession, url: str) -> None:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
        async for _ in answer.content.iter_any():
            pass


async def _run(cluster: Cluster, pid: int, arguments: argparse.Namespace) -> None:
    balancer = psutil.Process(pid)
    async with AsyncExitStack() as stack:
        connector = aiohttp.TCPConnector(limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        for number in range(AGENTS):
            agent = FakeAgent(
                cluster.management_port,
                name=f"gpu-{number}",
                slots=SLOTS,
                script=TALK,
                heartbeat_s=5.0,
            )
            await stack.enter_async_context(agent)
        asked = [
            asyncio.ensure_future(_ask(session, cluster.inference_url))
            for _ in range(arguments.requests)
        ]
        await asyncio.sleep(3)
        readers = Readers(session, cluster.management_url.replace("http", "ws"))
        added = []
        for pair in range(arguments.pairs):
            without = await _share_of_a_core(balancer, arguments.seconds)
            reading = [
                asyncio.ensure_future(readers.read(path))
                for _ in range(arguments.readers)
                for path in SOCKETS
            ]
            await asyncio.sleep(1)
            messages, read = readers.messages, readers.read_bytes
            with_readers = await _share_of_a_core(balancer, arguments.seconds)
            each = arguments.seconds * arguments.readers
            per_second = (readers.messages - messages) / each
            size = (readers.read_bytes - read) / each / 1000
            for one in reading:
                one.cancel()
            await asyncio.gather(*reading, return_exceptions=True)
            added.append(with_readers - without)
            print(
                f"    {pair + 1}: {without:6.1f} % of a core without, {with_readers:6.1f} % with; "
                f"{per_second:.1f} messages and {size:.1f} kB a second and dashboard",
                flush=True,
            )
        for one in asked:
            one.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    print(f"added, median: {statistics.median(added):.1f} % of a core")


def main(given: list[str] | None = None) -> None:
    """Pairs of stretches, and the median of what the readers added."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each half of a pair")
    arguments = parser.parse_args(given)
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(Path(folder))
        try:
            program = cluster.start_balancer("--log-level", "warning")
            uvloop.run(_run(cluster, program.pid, arguments))
        finally:
            cluster.close()


if __name__ == "__main__":
    main()
