"""Waiting on real processes: a short tenant beside a crowd, and estimated starts against actual.

A balancer, one agent with the model that ships; tenants are client addresses, 127.0.0.1 with long
requests and 127.0.0.2 with a short one each second. Under two minutes. The same in virtual time,
for any size: `python -m tests.benchmarks.simulate fairness` and `… estimate`.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.benchmarks.simulate.estimate import median_error
from tests.benchmarks.simulate.figures import quantile
from tests.support.cluster import Cluster

SLOTS = 4
LONG_TOKENS, SHORT_TOKENS = (100, 300), (2, 6)
QUEUED = 40
CROWD, LONELY = "127.0.0.1", "127.0.0.2"


@dataclass(frozen=True)
class Answered:
    """How long a request waited for a slot, and since when, in seconds of this process's clock."""

    id: str
    sent_s: float
    waited_s: float


class Tenant:
    """Sends from an address of its own."""

    def __init__(self, session: aiohttp.ClientSession, url: str, seed: int) -> None:
        self._session = session
        self._url = f"{url}/v1/chat/completions"
        self._dice = random.Random(seed)
        self._count = 0

    async def ask(self, tokens: tuple[int, int]) -> Answered:
        """One request, with an answer of so many tokens or so."""
        self._count += 1
        body = {
            "messages": [{"role": "user", "content": f"{self._count}: roll a die 300 times."}],
            "max_tokens": self._dice.randint(*tokens),
            "ignore_eos": True,
        }
        sent_s = time.monotonic()
        async with self._session.post(self._url, json=body) as answer:
            await answer.read()
            assert answer.status == 200, answer.status
            waited_s = float(answer.headers["X-Paddler-Queue-Ms"]) / 1000
            return Answered(answer.headers["X-Paddler-Request-Id"], sent_s, waited_s)


@asynccontextmanager
async def _tenant(cluster: Cluster, address: str) -> AsyncIterator[Tenant]:
    connector = aiohttp.TCPConnector(local_addr=(address, 0), limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield Tenant(session, cluster.inference_url, seed=1)


async def _short_waits_s(cluster: Cluster, *, in_flight: int, for_s: float) -> list[float]:
    """Of a request each second, beside so many long ones that are replaced as they end."""
    until_s = time.monotonic() + for_s

    async def keep_asking(crowd: Tenant) -> None:
        while time.monotonic() < until_s:
            await crowd.ask(LONG_TOKENS)

    async with (
        _tenant(cluster, CROWD) as crowd,
        _tenant(cluster, LONELY) as lonely,
        asyncio.TaskGroup() as tasks,
    ):
        for _ in range(in_flight):
            tasks.create_task(keep_asking(crowd))
        asked = []
        while time.monotonic() < until_s:
            await asyncio.sleep(1.0)
            asked.append(tasks.create_task(lonely.ask(SHORT_TOKENS)))
    return [task.result().waited_s for task in asked]


async def _starts_s(cluster: Cluster, waiting: int) -> list[tuple[float, float]]:
    """Estimated by `GET /requests` and actual, of so many that wait at one moment."""
    async with _tenant(cluster, CROWD) as crowd, asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(crowd.ask(LONG_TOKENS)) for _ in range(SLOTS + waiting)]
        rows: list[dict[str, Any]] = []
        async with aiohttp.ClientSession() as session:
            while len(rows) < waiting:
                await asyncio.sleep(0.02)
                looked_s = time.monotonic()
                async with session.get(f"{cluster.management_url}/requests") as answer:
                    listed = (await answer.json())["data"]
                rows = [row for row in listed if row["state"] == "waiting"]
    said_s = {row["id"]: row["estimated_start_s"] for row in rows}
    answers = [task.result() for task in asked]
    return [
        (said_s[one.id], one.sent_s + one.waited_s - looked_s)
        for one in answers
        if one.id in said_s
    ]


async def _run(cluster: Cluster, *, for_s: float, waiting: int) -> None:
    full = await _short_waits_s(cluster, in_flight=SLOTS, for_s=for_s)
    crowded = await _short_waits_s(cluster, in_flight=SLOTS + QUEUED, for_s=for_s)
    full_s, crowded_s = quantile(full, 0.95), quantile(crowded, 0.95)
    print(f"a short request each second, 95th percentile of {len(full)} and {len(crowded)} waits")
    print(f"    {SLOTS} long ones in flight          {full_s:7.3f} s")
    print(f"    {SLOTS + QUEUED} long ones in flight         {crowded_s:7.3f} s")
    print(f"    ratio                        {crowded_s / max(full_s, 1e-9):7.2f}", flush=True)
    pairs = await _starts_s(cluster, waiting)
    print(f"estimated starts of {len(pairs)} requests that wait, by GET /requests")
    print(f"    last one, actual             {max(was for _, was in pairs):7.3f} s")
    print(f"    median of |error| / actual   {100 * median_error(pairs):7.1f} %", flush=True)


def main(given: list[str] | None = None) -> None:
    """Both scenes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=25.0, help="of each half of the first")
    parser.add_argument("--waiting", type=int, default=60)
    arguments = parser.parse_args(given)
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(Path(folder))
        try:
            cluster.start_balancer("--log-level", "warning", "--queue-timeout", "300")
            cluster.start_agent("one", "--slots", str(SLOTS), "--threads", "1")
            asyncio.run(_run(cluster, for_s=arguments.seconds, waiting=arguments.waiting))
        finally:
            cluster.close()


if __name__ == "__main__":
    main()
