"""What choosing an agent and claiming its slot costs, by the number of agents and the policy.

`python -m tests.benchmarks.bench_decisions [--agents N …] [--requests N] [--policies …]`; minutes.
Agents without sockets, real roster, links and dispatcher. The fleet holds 10,000 prefix blocks, all
of them different but for those that all agents share: none ("apart"), or the first half of every
prompt ("shared"). A request has 20 blocks, and some agent a part of them. What is timed is the
choice, its entry in the journal and the claim, and beside that the same with the call's encoding,
which takes as long as its prompt is long; neither the hashing of the request nor what the agent
does with the call.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Callable, Sequence
from logging import WARNING
from statistics import median, quantiles
from types import ModuleType
from typing import Any, NamedTuple
from unittest.mock import patch

import structlog

from balancer.dispatch import generation as generations
from balancer.dispatch.dispatcher import Dispatcher
from balancer.dispatch.relay import Relay
from balancer.dispatch.starts import Starts
from balancer.fleet import link_calls
from balancer.fleet.roster import Roster
from balancer.observability.metrics import Metrics
from balancer.policy.identity.principal import Principal
from balancer.policy.routing.table import POLICIES
from balancer.settings import LiveSettings, PolicyName, Settings
from protocol.generation import GenerationRequest, Timings, Usage
from protocol.prefix_chain import BLOCK_BYTES, prefix_chain
from protocol.to_balancer import CacheChanged, Finished
from tests.support.generations import RecordingSink
from tests.support.memory_agent import MemoryAgent

BLOCKS = 10_000
REQUEST_BLOCKS = 20
MOST_RUNNING = 32
SHARED_BLOCKS = {"apart": 0, "shared": REQUEST_BLOCKS // 2}


class Took(NamedTuple):
    """Seconds of one start. `own_s` is the thread's own time, which leaves out what others on a
    shared machine take from it; both of these have the call's encoding in them."""

    decision_s: float
    with_call_s: float
    own_s: float


class Encoding:
    """Stands before a function of the call's encoding, and adds up what it takes."""

    total_s = 0.0

    def __init__(self, module: ModuleType, name: str) -> None:
        self._function = getattr(module, name)
        setattr(module, name, self)

    def __call__(self, *given: Any, **named: Any) -> Any:
        started = time.perf_counter()
        try:
            return self._function(*given, **named)
        finally:
            Encoding.total_s += time.perf_counter() - started


def timed(start: Callable[[Starts, Relay], bool], took: list[Took]) -> Callable[..., bool]:
    """Does the same, and keeps how long each start took."""

    def timed_start(starts: Starts, relay: Relay) -> bool:
        relay.prefix_chain  # noqa: B018 (hashing the request is another cost)
        encoding_s = Encoding.total_s
        own_s = time.thread_time()
        started = time.perf_counter()
        has_started = start(starts, relay)
        took_s = time.perf_counter() - started
        own_s = time.thread_time() - own_s
        encoding_s = Encoding.total_s - encoding_s
        took.append(Took(took_s - encoding_s, took_s, own_s))
        return has_started

    return timed_start


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


async def measure(
    agents: int, policy: PolicyName, *, shared_blocks: int, requests: int
) -> list[Took]:
    """One for each request."""
    dice = random.Random(1)
    settings = LiveSettings(Settings(policy=policy, max_waiting_of_tenant=100_000))
    metrics = Metrics()
    roster = Roster(settings=settings, metrics=metrics, now=time.monotonic)
    dispatcher = Dispatcher(roster=roster, settings=settings, metrics=metrics)
    took: list[Took] = []
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
    with patch.object(Starts, "_start", timed(Starts._start, took)):
        for _ in range(requests):
            known = dice.choice(prompts)[: dice.randrange(REQUEST_BLOCKS + 1) * BLOCK_BYTES]
            new_blocks = REQUEST_BLOCKS - len(known) // BLOCK_BYTES
            request = GenerationRequest(model="demo", prompt=known + _text(dice, new_blocks))
            asking = asyncio.ensure_future(
                dispatcher.generate(
                    request,
                    Principal(tenant="t", role="admin"),
                    RecordingSink(),
                    request_id=f"req_{len(took)}",
                )
            )
            asking.add_done_callback(lambda task: task.cancelled() or task.exception())
            await asyncio.sleep(0)
            for agent in fleet:
                agent.work(dice)
    dispatcher.end_all()
    await asyncio.sleep(0)
    return took


def _text(dice: random.Random, blocks: int) -> str:
    return dice.randbytes(blocks * BLOCK_BYTES // 2).hex()


def _chain(text: str) -> bytes:
    return prefix_chain(GenerationRequest(prompt=text), cache_scope="")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, nargs="*", default=[4, 64, 1000])
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--policies", nargs="*", default=list(POLICIES), choices=POLICIES)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(WARNING))
    Encoding(generations, "generate_tokens_call")
    Encoding(link_calls, "encode_request")
    print("                                    decision         with its call    of its own time")
    print("agents  prompts  policy          p50 us   p99 us   p50 us   p99 us   p99 us")
    for agents in arguments.agents:
        for prompts, shared_blocks in SHARED_BLOCKS.items():
            for policy in arguments.policies:
                took = asyncio.run(
                    measure(
                        agents, policy, shared_blocks=shared_blocks, requests=arguments.requests
                    )
                )
                decision_s, with_call_s, own_s = zip(*took, strict=True)
                print(
                    f"{agents:6d}  {prompts:7s}  {policy:14s} {_figures(decision_s)}  "
                    f"{_figures(with_call_s)}  {1e6 * _p99(own_s):7.1f}",
                    flush=True,
                )


def _figures(seconds: Sequence[float]) -> str:
    return f"{1e6 * median(seconds):7.1f}  {1e6 * _p99(seconds):7.1f}"


def _p99(seconds: Sequence[float]) -> float:
    return quantiles(seconds, n=100)[98]


if __name__ == "__main__":
    main()
