"""`make fuzz`: mutated requests to both ports of a balancer in a process of its own.

Ends with an error if an input got a 500, anything that is no HTTP, or a 502, 503 or 504 without the
error body; if the balancer died, logged a fault of its own, or does not answer a plain request
afterwards; or if its memory grew by more than 32 MiB in the second half. `--first N --inputs 1`
sends one input again.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

import psutil

from balancer.http.exchange import Port
from tests.fuzz.agents import two_fake_agents
from tests.fuzz.campaign import Tally, campaign
from tests.support.cluster import Cluster, Program
from tests.support.running_balancer import chat_bytes

MOST_GROWTH_MIB = 32.0
SAMPLES = 20
MIB = 1024 * 1024
_OUR_FAULTS = ("handler failed", "answer failed", "Traceback (most recent call last)")
_PLAIN = chat_bytes().replace(b"\r\n", b"\r\nConnection: close\r\n", 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first input")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(Path(folder))
        try:
            return asyncio.run(_fuzz(cluster, arguments))
        finally:
            cluster.close()


async def _fuzz(cluster: Cluster, arguments: argparse.Namespace) -> int:
    flags = ("--log-level", "warning", "--queue-timeout", "2")
    balancer = await asyncio.to_thread(cluster.start_balancer, *flags)
    process = psutil.Process(balancer.pid)
    every = max(1, arguments.inputs // SAMPLES)
    memory: list[float] = []
    started_s = time.monotonic()

    def on_sent(count: int) -> None:
        if count % every == 0 and balancer.exit_code is None:
            memory.append(process.memory_info().rss / MIB)
            print(f"{count} inputs, {memory[-1]:.0f} MiB", flush=True)

    ports: dict[Port, int] = {
        "inference": cluster.inference_port,
        "management": cluster.management_port,
    }
    async with two_fake_agents(cluster.management_port):
        tally = await campaign(
            ports,
            inputs=arguments.inputs,
            seed=arguments.seed,
            first=arguments.first,
            on_sent=on_sent,
        )
        took_s = time.monotonic() - started_s
        problems = [*_problems(tally, memory, balancer), *await _plain(cluster.inference_port)]
    print(f"{tally.sent} inputs in {took_s:.0f} s, answers {dict(sorted(tally.statuses.items()))}")
    print(*problems or ["nothing failed"], sep="\n")
    return int(bool(problems))


def _problems(tally: Tally, memory: list[float], balancer: Program) -> list[str]:
    found = [
        f"input {fault.number}: {fault.why}\n  sent {fault.sent!r}\n  came {fault.came!r}"
        for fault in tally.faults[:10]
    ]
    if len(tally.faults) > len(found):
        found.append(f"and {len(tally.faults) - len(found)} more inputs")
    if balancer.exit_code is not None:
        found.append(f"the balancer ended with {balancer.exit_code}")
    log = balancer.log()
    found += [
        f"the log says {fault!r}\n{_around(log, fault)}" for fault in _OUR_FAULTS if fault in log
    ]
    middle, end = memory[len(memory) // 2 : len(memory) // 2 + 1], memory[-1:]
    if middle and end and end[0] - middle[0] > MOST_GROWTH_MIB:
        found.append(f"memory grew from {middle[0]:.0f} to {end[0]:.0f} MiB in the second half")
    return found


def _around(log: str, words: str) -> str:
    start = log.index(words)
    return log[max(0, start - 200) : start + 4000]


async def _plain(port: int) -> list[str]:
    """Whether an ordinary request is served."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_PLAIN)
    answer = await asyncio.wait_for(reader.read(-1), 30)
    writer.close()
    await writer.wait_closed()
    return [] if answer.startswith(b"HTTP/1.1 200") else [f"afterwards: {answer[:500]!r}"]


if __name__ == "__main__":
    sys.exit(main())
