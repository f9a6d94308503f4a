"""An engine stands still while its agent's heartbeats go on: its streams go on elsewhere."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import psutil

from tests.chaos.storm import Said, bodies, client
from tests.support.cluster import Cluster, eventually

SLOTS = 8
PROGRESS_TIMEOUT_S = 2.0


@dataclass
class Stood:
    """What the streams said while an engine stood still, and on a quiet day."""

    said: list[Said] = field(default_factory=list)
    expected: list[Said] = field(default_factory=list)
    stopped_with: int = 0
    """Streams that the engine had when it was stopped."""

    @property
    def gaps_s(self) -> list[float]:
        """The longest silence of each stream that was moved."""
        return sorted(one.longest_gap_s for one in self.said if one.attempts > 1)


async def gray(folder: Path, *, agents: int = 4, streams: int = 16, seed: int = 1) -> Stood:
    """Stop one agent's engine when all streams run. The text on a quiet day comes first."""
    cluster, outcome = Cluster(folder), Stood()
    config = folder / "paddler.yaml"
    config.write_text(f"progress_timeout_s: {PROGRESS_TIMEOUT_S}\nheartbeat_interval_s: 0.5\n")
    stopped: psutil.Process | None = None
    try:
        await asyncio.to_thread(cluster.start_balancer, "--config", str(config))
        names = [f"agent-{number}" for number in range(agents)]
        programs = {
            name: cluster.start_agent(name, "--slots", str(SLOTS), wait=False) for name in names
        }
        await eventually(lambda: slots_of(cluster) == agents * SLOTS, what="all agents serve")
        asked = list(bodies(Random(seed), ("counting",), streams).values())
        async with client(cluster.inference_url) as ask:
            outcome.expected = [await ask(body) for body in asked]
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(ask(body)) for body in asked]
                await eventually(
                    lambda: sum(running_on(cluster, names)) == streams, what="all streams run"
                )
                running_now = running_on(cluster, names)
                outcome.stopped_with = max(running_now)
                stopped = programs[names[running_now.index(outcome.stopped_with)]].engine()
                stopped.send_signal(signal.SIGSTOP)
            outcome.said = [task.result() for task in running]
    finally:
        if stopped is not None:
            stopped.kill()
        await asyncio.to_thread(cluster.close)
    return outcome


def slots_of(cluster: Cluster) -> int:
    """Slots that the balancer may use now."""
    return sum(row["slots"]["total"] for row in cluster.agents().values())


def running_on(cluster: Cluster, names: list[str]) -> list[int]:
    """Calls that each of these agents has now."""
    agents = cluster.agents()
    return [int(agents[name]["slots"]["running"]) for name in names]


def gray_words(outcome: Stood) -> str:
    """The figures."""
    equal, failed = equal_and_failed(outcome.said, outcome.expected)
    gaps = outcome.gaps_s or [0.0]
    return (
        f"an engine stopped with {outcome.stopped_with} streams, progress timeout "
        f"{PROGRESS_TIMEOUT_S:g} s: of {len(outcome.said)} streams {len(outcome.gaps_s)} moved, "
        f"{equal} equal, {failed} failed; longest silence of a moved stream "
        f"p50 {gaps[len(gaps) // 2]:.2f} s, most {gaps[-1]:.2f} s"
    )


def equal_and_failed(said: list[Said], expected: list[Said]) -> tuple[int, int]:
    """How many said what they say on a quiet day, and how many ended with an error."""
    pairs = zip(said, expected, strict=True)
    return sum(one.words == other.words for one, other in pairs), sum(bool(s.error) for s in said)
