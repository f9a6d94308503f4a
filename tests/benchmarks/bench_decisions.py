"""What choosing an agent and claiming its slot costs, by the number of agents and the policy.

`python -m tests.benchmarks.bench_decisions [--agents N …] [--policies …]`; a minute. Agents without
sockets, real roster, links and dispatcher. The fleet holds 10,000 prefix blocks, all of them
different but for those that all agents share: none ("apart"), or the first half of every prompt
("shared"). A request has 20 blocks, and some agent a part of them. What is timed is the choice, its
entry in the journal, the call's encoding and the claim; neither the hashing of the request nor what
the agent does with the call.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from logging import WARNING
from statistics import median, quantiles

import structlog

from balancer.dispatch.dispatcher import Dispatcher
from balancer.dispatch.relay import Relay
from balancer.fleet.roster import Roster
from balancer.observability.metrics import Metrics
from balancer.policy.identity.principal import Principal
from balancer.policy.routing.table import POLICIES
from balancer.settings import PolicyName, Settings
from protocol.generation import GenerationRequest, Timings, Usage
from protocol.prefix_chain import BLOCK_BYTES, prefix_chain
from protocol.to_balancer import CacheChanged, Finished
from tests.support.generations import RecordingSink
from tests.support.memory_agent import MemoryAgent

BLOCKS = 10_000
REQUEST_BLOCKS = 20
REQUESTS = 3000
MOST_RUNNING = 32
SHARED_BLOCKS = {"apart": 0, "shared": REQUEST_BLOCKS // 2}


class Timed(Dispatcher):
    """Keeps how long each start took, in seconds of the thread's own time: what others on a shared
    machine take from it is not the decision's cost."""

    def __init__(self, roster: Roster, settings: Settings, metrics: Metrics) -> None:
        super().__init__(roster=roster, settings=settings, metrics=metrics)
        self.took_s: list[float] = []

    def _start(self, relay: Relay) -> bool:
        relay.prefix_chain  # noqa: B018 (hashing the request is another cost)
        started = time.thread_time()
        has_started = super()._start(relay)
        self.took_s.append(time.thread_time() - started)
        return has_started


class ReadingLater(MemoryAgent):
    """Decodes what it was sent when it answers, as another process would."""

    def __init__(self, roster: Roster, name: str, *, slots: int) -> None:
        self._unread: list[bytes] = []
        super().__init__(roster, name, slots=slots)

    def _take(self, message: bytes) -> None:
        self._unread.append(message)

    def work(self, dice: random.Random) -> None:
        """Take the calls that came, end the oldest one of many."""
        unread, self._unread = self._unread, []
        for message in unread:
            super()._take(message)
        if self.answer() and len(self.running) > MOST_RUNNING:
            call = self.running.pop(0)
            usage = Usage(prompt_tokens=2000, completion_tokens=100, cached_tokens=1000)
            timings = Timings(
                prefill_ms=1000 * dice.uniform(0.5, 1.5), decode_ms=2000 * dice.uniform(0.5, 1.5)
            )
            self.say(Finished(call=call, finish_reason="stop", usage=usage, timings=timings))


async def measure(agents: int, policy: PolicyName, *, shared_blocks: int) -> list[float]:
    """Seconds of each decision."""
    dice = random.Random(1)
    settings = Settings(policy=policy, max_waiting_of_tenant=100_000)
    metrics = Metrics()
    roster = Roster(settings=settings, metrics=metrics, now=time.monotonic)
    dispatcher = Timed(roster, settings, metrics)
    own_blocks = REQUEST_BLOCKS - shared_blocks
    shared = _text(dice, shared_blocks)
    prompts = [
        shared + _text(dice, own_blocks) for _ in range((BLOCKS - shared_blocks) // own_blocks)
    ]
    fleet = [ReadingLater(roster, f"agent-{n}", slots=64) for n in range(agents)]
    for index, agent in enumerate(fleet):
        agent.register()
        for text in (shared, *prompts[index::agents]):
            agent.cache_seq += 1
            agent.say(CacheChanged(cache_seq=agent.cache_seq, gained=_chain(text)))
    for _ in range(REQUESTS):
        known = dice.choice(prompts)[: dice.randrange(REQUEST_BLOCKS + 1) * BLOCK_BYTES]
        new_blocks = REQUEST_BLOCKS - len(known) // BLOCK_BYTES
        request = GenerationRequest(model="demo", prompt=known + _text(dice, new_blocks))
        asking = asyncio.ensure_future(
            dispatcher.generate(
                request,
                Principal(tenant="t", role="admin"),
                RecordingSink(),
                request_id=f"req_{len(dispatcher.took_s)}",
            )
        )
        asking.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.sleep(0)
        for agent in fleet:
            agent.work(dice)
    dispatcher.end_all()
    await asyncio.sleep(0)
    return dispatcher.took_s


def _text(dice: random.Random, blocks: int) -> str:
    return dice.randbytes(blocks * BLOCK_BYTES // 2).hex()


def _chain(text: str) -> bytes:
    return prefix_chain(GenerationRequest(prompt=text), cache_scope="")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, nargs="*", default=[4, 64, 1000])
    parser.add_argument("--policies", nargs="*", default=list(POLICIES), choices=POLICIES)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(WARNING))
    print("agents  prompts  policy          p50 us   p99 us")
    for agents in arguments.agents:
        for prompts, shared_blocks in SHARED_BLOCKS.items():
            for policy in arguments.policies:
                took_s = asyncio.run(measure(agents, policy, shared_blocks=shared_blocks))
                p99 = quantiles(took_s, n=100)[98]
                print(
                    f"{agents:6d}  {prompts:7s}  {policy:14s} "
                    f"{1e6 * median(took_s):7.1f}  {1e6 * p99:7.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
