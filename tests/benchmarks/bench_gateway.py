"""What the balancer costs: CPU time of its process per request and per streamed token.

A real balancer process; the agent is real, too, but in this process and on a fake engine, so that
its cost does not count. CPU time, not wall time: noise of the machine hardly touches it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from pathlib import Path

import psutil

from agent.app import App
from agent.settings import BalancerAddress, Settings
from tests.support.cluster import Cluster, eventually
from tests.support.fake_engine import FakeEngine, words
from tests.support.leaving_clients import chat_request

SLOTS = 64
QUESTION = {"model": "fake", "messages": [{"role": "user", "content": "How do you do? " * 8}]}


async def _one_client(port: int, request: bytes, times: int) -> None:
    """One keep-alive connection that asks `times` times and reads each answer whole."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(times):
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if b"chunked" in head.lower():
            while size := int(await reader.readline(), 16):
                await reader.readexactly(size + 2)
            await reader.readline()
        else:
            length = head.lower().split(b"content-length:")[1].split(b"\r\n")[0]
            await reader.readexactly(int(length))
    writer.close()


async def _load(port: int, body: dict[str, object], clients: int, times: int) -> None:
    request = chat_request(body)
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(_one_client(port, request, times))


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


async def _measure(cluster: Cluster, pid: int, tokens: int, rounds: int) -> None:
    short = {**QUESTION, "max_tokens": 1}
    long = {**QUESTION, "max_tokens": tokens, "stream": True}
    await _load(cluster.inference_port, short, 32, 5)
    for number in range(rounds):
        before = _cpu_s(pid)
        await _load(cluster.inference_port, short, 32, 60)
        per_request = (_cpu_s(pid) - before) / (32 * 60)
        before = _cpu_s(pid)
        await _load(cluster.inference_port, long, SLOTS, 2)
        streams = SLOTS * 2
        per_token = (_cpu_s(pid) - before - streams * per_request) / (streams * tokens)
        row = {
            "round": number + 1,
            "us_per_request": round(per_request * 1e6, 1),
            "us_per_streamed_token": round(per_token * 1e6, 2),
        }
        print(json.dumps(row), flush=True)


async def _run(tokens: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(Path(folder))
        try:
            balancer = cluster.start_balancer("--log-level", "warning")
            settings = Settings(
                balancer=BalancerAddress("127.0.0.1", cluster.management_port),
                model_path=Path("fake.gguf"),
                aliases=("fake",),
            )
            engine = FakeEngine(words(tokens + 10), slots=SLOTS, pace="tick")
            agent = App(settings, engine, name="bench")
            async with asyncio.TaskGroup() as group:
                group.create_task(agent.run())
                await eventually(
                    lambda: cluster.agents().get("bench", {}).get("slots", {}).get("total"),
                    what="the agent serves",
                )
                await _measure(cluster, balancer.pid, tokens, rounds)
                agent.stop()
                agent.stop()
        finally:
            cluster.close()


def main() -> None:
    """Three rounds of 1920 short requests and 128 streams."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    asyncio.run(_run(arguments.tokens, arguments.rounds))


if __name__ == "__main__":
    main()
