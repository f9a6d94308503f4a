"""Hundreds of clients that leave at random moments cost nothing that stays.

Real balancer, real agent, real sockets; only the engine is a fake.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import random
import statistics
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from agent.settings import BalancerAddress
from balancer.dispatch.journal import MOST_REQUESTS
from tests.support.fake_engine import FakeEngine, Pace, words
from tests.support.leaving_clients import leave_at_random
from tests.support.running_agent import running_agent
from tests.support.running_balancer import RunningBalancer, eventually, running_balancer

SLOTS = 4
FIRST_CLIENTS = 200
ALL_CLIENTS = 2000
AT_ONCE = 40
BODY = {"model": "fake", "messages": [{"role": "user", "content": "Tell me a long story."}]}
HEAP_GROWTH = 1.10


@pytest.fixture
async def engine() -> FakeEngine:
    return FakeEngine(words(3000), slots=SLOTS, pace="tick")


@pytest.fixture
def nothing_logged() -> Iterator[None]:
    """pytest keeps every record, and another test may have left the level where requests log."""
    logging.disable(logging.INFO)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
async def balancer(engine: FakeEngine) -> AsyncIterator[RunningBalancer]:
    async with AsyncExitStack() as stack:
        balancer = await stack.enter_async_context(running_balancer())
        address = BalancerAddress("127.0.0.1", balancer.management_port)
        await stack.enter_async_context(running_agent(address, engine, aliases=("fake",)))
        roster = balancer.app.wiring.roster
        await eventually(lambda: any(agent.slots_free for agent in roster.agents()), "the agent")
        yield balancer


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _heap_objects() -> int:
    gc.collect()
    return len(gc.get_objects())


async def _crowd(balancer: RunningBalancer, count: int, dice: random.Random) -> None:
    """So many clients, at most `AT_ONCE` of them at a time."""
    room = asyncio.Semaphore(AT_ONCE)

    async def client() -> None:
        async with room:
            await leave_at_random(balancer.inference_port, BODY, dice)

    async with asyncio.timeout(150):
        await asyncio.gather(*(client() for _ in range(count)))


async def _fill_journal(balancer: RunningBalancer, engine: FakeEngine) -> None:
    engine.pace = "fast"
    for _ in range(MOST_REQUESTS // AT_ONCE):
        answers = (balancer.chat(model="fake", max_tokens=1) for _ in range(AT_ONCE))
        assert {answer.status for answer in await asyncio.gather(*answers)} == {200}
    engine.pace = "tick"


async def _at_rest(balancer: RunningBalancer, engine: FakeEngine) -> None:
    await eventually(lambda: balancer.is_at_rest, "every slot is free and nobody waits")
    await eventually(lambda: engine.running == 0, "the engine is idle")


async def _everything_is_given_back(
    balancer: RunningBalancer, engine: FakeEngine, *, tasks: int, descriptors: int
) -> None:
    await _at_rest(balancer, engine)
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks, "tasks are at their baseline")
    await eventually(lambda: _descriptors() <= descriptors, "descriptors are at their baseline")
    assert balancer.metric("paddler_requests_waiting") == 0
    assert balancer.metric("paddler_generations_in_flight") == 0
    assert balancer.metric("paddler_cancel_to_free_slot_seconds_count") > 0
    assert engine.most_running <= SLOTS


@pytest.mark.parametrize("pace", ["tick", "held"])
async def test_clients_that_leave_at_random_moments_leave_nothing_behind(
    balancer: RunningBalancer, engine: FakeEngine, pace: Pace
) -> None:
    """`held`: no token ever comes, so whoever runs is in prefill and the others wait."""
    engine.pace = pace
    dice = random.Random(7)
    await _crowd(balancer, 20, dice)  # what is allocated once, is allocated now
    await _at_rest(balancer, engine)
    tasks, descriptors = len(asyncio.all_tasks()), _descriptors()

    await _crowd(balancer, FIRST_CLIENTS, dice)

    await _everything_is_given_back(balancer, engine, tasks=tasks, descriptors=descriptors)
    engine.pace = "fast"
    answer = await balancer.chat(model="fake", max_tokens=5)
    assert answer.status == 200


@pytest.mark.usefixtures("nothing_logged")
async def test_two_thousand_clients_that_leave_grow_the_heap_no_more_than_two_hundred(
    balancer: RunningBalancer, engine: FakeEngine
) -> None:
    """Crowds of one size, as the loop keeps the last crowd's own tasks alive; and without the
    fake engine's record of what it was told: what is left is what the product keeps.

    Most of a heap is libraries, in a tenth of which a leak would hide. But a leak grows with every
    crowd, and a module that is imported late with one: the median crowd tells them apart.
    """
    dice = random.Random(11)
    await _fill_journal(balancer, engine)  # from here on it forgets one for each that comes
    heap: list[int] = []
    for _ in range(ALL_CLIENTS // FIRST_CLIENTS):
        await _crowd(balancer, FIRST_CLIENTS, dice)
        await _at_rest(balancer, engine)
        engine.commands.clear()
        heap.append(_heap_objects())
    assert heap[-1] <= heap[0] * HEAP_GROWTH
    growth = statistics.median(after - before for before, after in itertools.pairwise(heap))
    assert growth < FIRST_CLIENTS / 4, f"objects after each crowd: {heap}"
