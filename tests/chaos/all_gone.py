"""Every agent is killed at once, and all of them come back: no stream is lost."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.chaos.gray import SLOTS, equal_and_failed, running_on, slots_of
from tests.chaos.storm import FLAGS, Said, bodies, client
from tests.support.cluster import Cluster, Program, eventually

AWAY_S = 1.0
TIME_ENOUGH_S = 100.0
"""Every second stream has a deadline of its own, so far away that it has time left."""


@dataclass
class Away:
    """What the streams said although all agents went, and on a quiet day."""

    said: list[Said] = field(default_factory=list)
    expected: list[Said] = field(default_factory=list)
    away_s: float = 0.0
    """From the kill until the balancer could use all agents again."""

    @property
    def gaps_s(self) -> list[float]:
        """The longest silence of each stream."""
        return sorted(one.longest_gap_s for one in self.said)


async def all_gone(folder: Path, *, agents: int = 4, streams: int = 16, seed: int = 1) -> Away:
    """Kill all agents when all streams run, and start them again a second later, under the same
    names."""
    cluster, outcome = Cluster(folder), Away()
    names = [f"agent-{number}" for number in range(agents)]

    def start(name: str) -> None:
        programs[name] = cluster.start_agent(name, "--slots", str(SLOTS), wait=False)

    programs: dict[str, Program] = {}
    try:
        await asyncio.to_thread(cluster.start_balancer, *FLAGS)
        for name in names:
            start(name)
        await eventually(lambda: slots_of(cluster) == agents * SLOTS, what="all agents serve")
        asked = list(bodies(Random(seed), ("counting",), streams).values())
        for body in asked[::2]:
            body["timeout"] = TIME_ENOUGH_S
        async with client(cluster.inference_url) as ask:
            outcome.expected = [await ask(body) for body in asked]
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(ask(body)) for body in asked]
                await eventually(
                    lambda: sum(running_on(cluster, names)) == streams,
                    what="all streams run",
                )
                for name in names:
                    programs[name].send(signal.SIGKILL)
                killed_s = time.monotonic()
                await asyncio.sleep(AWAY_S)
                for name in names:
                    start(name)
                await eventually(
                    lambda: slots_of(cluster) == agents * SLOTS, what="all agents are back"
                )
                outcome.away_s = time.monotonic() - killed_s
            outcome.said = [task.result() for task in running]
    finally:
        await asyncio.to_thread(cluster.close)
    return outcome


def all_gone_words(outcome: Away) -> str:
    """The figures."""
    equal, failed = equal_and_failed(outcome.said, outcome.expected)
    gaps = outcome.gaps_s
    return (
        f"all agents killed, all back after {outcome.away_s:.1f} s: {len(outcome.said)} streams, "
        f"{equal} equal, {failed} failed; longest silence p50 {gaps[len(gaps) // 2]:.2f} s, "
        f"most {gaps[-1]:.2f} s"
    )
