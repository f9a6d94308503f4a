"""How long things take when processes are killed and clients leave: real processes, seconds.

A restarted process starts when the clock starts: its own start-up and the model's loading count.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.support.cluster import Cluster, Program, wait_until
from tests.support.leaving_clients import leave_at_random

FLAGS = ("--heartbeat-interval", "5")
LONG = {"messages": [{"role": "user", "content": "Roll a die 200 times."}], "ignore_eos": True}
SHORT = {"messages": [{"role": "user", "content": "Which port do agents dial?"}], "max_tokens": 4}


class _Stream:
    """A stream read in a thread; `ended` is set when it is over, however."""

    def __init__(self, cluster: Cluster) -> None:
        self.begun, self.ended = threading.Event(), threading.Event()
        self.last = ""
        body = json.dumps({**LONG, "stream": True}).encode()
        self._request = urllib.request.Request(f"{cluster.inference_url}/v1/chat/completions", body)
        threading.Thread(target=self._read, daemon=True).start()
        assert self.begun.wait(30), "the stream never began"

    def _read(self) -> None:
        try:
            with urllib.request.urlopen(self._request, timeout=60) as answer:
                for line in answer:
                    if line.startswith(b"data: "):
                        self.last = line.decode()
                        self.begun.set()
        except OSError as error:
            self.last = repr(error)
        self.ended.set()


def _answers(cluster: Cluster) -> bool:
    request = urllib.request.Request(
        f"{cluster.inference_url}/v1/chat/completions", json.dumps(SHORT).encode()
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


def _seconds(condition: Callable[[], object], what: str) -> float:
    started = time.monotonic()
    wait_until(condition, what=what)
    return time.monotonic() - started


def _gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _say(what: str, seconds: float) -> None:
    print(f"{what:<66} {seconds:7.3f} s", flush=True)


def _kill_agent(cluster: Cluster, agent: Program) -> Program:
    engine = agent.engine()
    stream = _Stream(cluster)
    agent.send(signal.SIGKILL)
    _say(
        "agent killed -> its engine gone, too", _seconds(lambda: _gone(engine), "the engine's end")
    )
    before = stream.last
    started = time.monotonic()
    agent = cluster.start_agent("one", "--slots", "4", wait=False)
    wait_until(lambda: stream.last != before, what="the next token")
    _say("agent started again -> the killed one's stream goes on", time.monotonic() - started)
    wait_until(stream.ended.is_set, what="the stream's end")
    return agent


def _kill_engine(cluster: Cluster, agent: Program) -> None:
    engine = agent.engine()
    stream = _Stream(cluster)
    started = time.monotonic()
    engine.kill()
    wait_until(lambda: agent.engine().pid != engine.pid, what="another engine")
    before = stream.last
    wait_until(lambda: stream.last != before, what="the next token")
    _say("engine killed -> its stream goes on", time.monotonic() - started)
    wait_until(stream.ended.is_set, what="the stream's end")


def _kill_balancer(cluster: Cluster, balancer: Program) -> None:
    balancer.send(signal.SIGKILL)
    balancer.wait()
    started = time.monotonic()
    cluster.start_balancer(*FLAGS)
    wait_until(lambda: _answers(cluster), what="an answer from the restarted balancer")
    _say("balancer started again -> answered a request", time.monotonic() - started)


def _leaving(cluster: Cluster) -> None:
    dice = random.Random(3)

    async def crowd() -> None:
        room = asyncio.Semaphore(40)

        async def client() -> None:
            async with room:
                await leave_at_random(cluster.inference_port, LONG, dice)

        await asyncio.gather(*(client() for _ in range(200)))

    asyncio.run(crowd())
    _say(
        "200 clients left at random -> every slot free",
        _seconds(
            lambda: (
                cluster.agents()["one"]["slots"]["running"] == 0
                and cluster.metric("paddler_generations_in_flight") == 0
            ),
            "every slot is free",
        ),
    )
    count = cluster.metric("paddler_cancel_to_free_slot_seconds_count")
    total = cluster.metric("paddler_cancel_to_free_slot_seconds_sum")
    _say(f"    mean of {count:.0f} cancels, client gone -> slot free", total / max(count, 1))


def main() -> None:
    """One pass over all of them, under a minute."""
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(Path(folder))
        try:
            balancer = cluster.start_balancer(*FLAGS)
            agent = cluster.start_agent("one", "--slots", "4")
            _leaving(cluster)
            agent = _kill_agent(cluster, agent)
            _kill_engine(cluster, agent)
            _kill_balancer(cluster, balancer)
        finally:
            cluster.close()


if __name__ == "__main__":
    main()
