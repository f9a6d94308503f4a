"""What choosing an agent and claiming its slot costs, by the number of agents and the policy.

`python -m tests.benchmarks.bench_decisions`; seconds. Agents without sockets, real roster, links
and dispatcher; 10,000 prefix blocks in all, requests of 20 blocks of which some agent has a part.
What is timed is the choice, its entry in the journal, and the call's encoding.
"""

from __future__ import annotations

import asyncio
import random
import time
from statistics import median, quantiles

from balancer.dispatch.dispatcher import Dispatcher
from balancer.dispatch.relay import Relay
from balancer.fleet.roster import Roster
from balancer.observability.metrics import Metrics
from balancer.policy.identity.principal import Principal
from balancer.settings import PolicyName, Settings
from protocol.generation import GenerationRequest
from protocol.prefix_chain import BLOCK_BYTES, HASH_BYTES, prefix_chain
from protocol.to_balancer import CacheChanged
from tests.support.generations import RecordingSink
from tests.support.memory_agent import MemoryAgent

BLOCKS = 10_000
REQUEST_BLOCKS = 20
REQUESTS = 3000


class Timed(Dispatcher):
    """Keeps how long each start took, in seconds."""

    def __init__(self, roster: Roster, settings: Settings, metrics: Metrics) -> None:
        super().__init__(roster=roster, settings=settings, metrics=metrics)
        self.took_s: list[float] = []

    def _start(self, relay: Relay) -> bool:
        relay.prefix_chain  # noqa: B018 (hashing the request is another cost)
        started = time.perf_counter()
        has_started = super()._start(relay)
        self.took_s.append(time.perf_counter() - started)
        return has_started


async def measure(agents: int, policy: PolicyName) -> list[float]:
    """Seconds of each decision."""
    dice = random.Random(1)
    settings = Settings(policy=policy, max_waiting_of_tenant=100_000)
    metrics = Metrics()
    roster = Roster(settings=settings, metrics=metrics, now=time.monotonic)
    dispatcher = Timed(roster, settings, metrics)
    prompts = [
        "".join(chr(97 + dice.randrange(26)) for _ in range(REQUEST_BLOCKS * BLOCK_BYTES))
        for _ in range(BLOCKS // REQUEST_BLOCKS)
    ]
    fleet = [MemoryAgent(roster, f"agent-{n}", slots=64).register() for n in range(agents)]
    for index, prompt in enumerate(prompts):
        chain = prefix_chain(GenerationRequest(prompt=prompt), cache_scope="")
        agent = fleet[index % agents]
        agent.cache_seq += 1
        part = chain[: dice.randrange(1, REQUEST_BLOCKS + 1) * HASH_BYTES]
        agent.say(CacheChanged(cache_seq=agent.cache_seq, gained=part))
    for _ in range(REQUESTS):
        request = GenerationRequest(model="demo", prompt=dice.choice(prompts))
        asking = asyncio.ensure_future(
            dispatcher.generate(
                request,
                Principal(tenant="t", role="admin"),
                RecordingSink(),
                request_id=f"req_{len(dispatcher.took_s)}",
            )
        )
        await asyncio.sleep(0)
        for agent in fleet:
            for call in agent.answer():
                if len(agent.running) > 32:
                    agent.finish(agent.running[0])
                del call
        asking.add_done_callback(lambda task: task.cancelled() or task.exception())
    dispatcher.end_all()
    await asyncio.sleep(0)
    return dispatcher.took_s


def main() -> None:
    print("agents  policy          p50 us   p99 us")
    for agents in (4, 64, 1000):
        for policy in ("least_busy", "prefix_aware"):
            took_s = asyncio.run(measure(agents, policy))
            p99 = quantiles(took_s, n=100)[98]
            print(f"{agents:6d}  {policy:14s} {1e6 * median(took_s):7.1f}  {1e6 * p99:7.1f}")


if __name__ == "__main__":
    main()
