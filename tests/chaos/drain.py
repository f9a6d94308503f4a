"""An agent is drained in the middle of its streams: they go on elsewhere, with their KV state."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.chaos.storm import FLAGS, SLOTS, Said, bodies, client
from tests.support.cluster import Cluster, eventually


@dataclass
class Drained:
    """What the clients of the drained agent saw."""

    said: list[Said] = field(default_factory=list)
    expected: list[Said] = field(default_factory=list)
    moves: float = 0.0

    @property
    def gaps_s(self) -> list[float]:
        """The longest silence of each stream."""
        return sorted(one.longest_gap_s for one in self.said)

    @property
    def cached_tokens(self) -> list[int]:
        """Of each prompt, what the last agent did not have to compute."""
        return [one.usage["prompt_tokens_details"]["cached_tokens"] for one in self.said]


async def drain(folder: Path, *, seed: int = 1) -> Drained:
    """Eight streams on one agent, which is drained when all of them run."""
    cluster, outcome = Cluster(folder), Drained()
    try:
        await asyncio.to_thread(cluster.start_balancer, *FLAGS)
        for name in ("first", "second"):
            await asyncio.to_thread(cluster.start_agent, name, "--slots", str(SLOTS))
        cluster.operate("/agents/second/drain")
        asked = list(bodies(Random(seed), ("counting",), SLOTS).values())
        async with client(cluster.inference_url) as ask:
            outcome.expected = [await ask(body) for body in asked]
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(ask(body)) for body in asked]
                await eventually(
                    lambda: cluster.agents()["first"]["slots"]["running"] == SLOTS,
                    what="all streams run",
                )
                cluster.operate("/agents/second/undrain")
                cluster.operate("/agents/first/drain?deadline_s=0")
            outcome.said = [task.result() for task in running]
        outcome.moves = cluster.metric("paddler_generation_moves_total")
    finally:
        await asyncio.to_thread(cluster.close)
    return outcome
