"""Requests that rather wait for a full agent that has their beginning cached."""

from __future__ import annotations

import asyncio

import pytest

from balancer.dispatch.holding import LOOK_EVERY_S, MOST_HELD
from balancer.settings import Settings
from protocol.generation import GenerationRequest
from protocol.prefix_chain import HASH_BYTES, prefix_chain
from protocol.to_balancer import CacheChanged
from tests.support.generations import Balancer, Generation, now
from tests.support.memory_agent import MemoryAgent
from tests.support.virtual_time import in_virtual_time, settle

LONG = "a" * 60_000
"""117 blocks: 5.9 s to compute, as long as nothing was measured, and a call takes 2 s."""
SAVED_S = 5.85


def caches(agent: MemoryAgent, prompt: str) -> None:
    """The agent says that it has a prompt in its cache."""
    chain = prefix_chain(GenerationRequest(prompt=prompt), cache_scope="")
    agent.cache_seq += 1
    agent.say(CacheChanged(cache_seq=agent.cache_seq, gained=chain))
    assert len(chain) // HASH_BYTES == 117


async def one_waits(balancer: Balancer) -> tuple[MemoryAgent, MemoryAgent, int, Generation]:
    """A full agent that has the long prompt, an idle one, and a request that waits."""
    warm = balancer.agent("warm", slots=1)
    await balancer.ask(prompt=LONG)
    warm.answer()
    caches(warm, LONG)
    cold = balancer.agent("cold", slots=1)
    waiting = await balancer.ask(prompt=LONG, request_id="req_2")
    assert (balancer.dispatcher.waiting, cold.unanswered) == (1, [])
    return warm, cold, warm.running[0], waiting


@in_virtual_time
async def test_a_request_waits_for_the_full_agent_that_has_its_beginning() -> None:
    balancer = Balancer()
    warm, cold, first, _ = await one_waits(balancer)
    await asyncio.sleep(1.0)
    warm.finish(first)
    await settle()
    assert (len(warm.unanswered), cold.unanswered) == (1, [])
    assert balancer.dispatcher.waiting == 0
    (route,) = balancer.dispatcher.routes("req_2")
    assert [(one.chosen, one.outcome) for one in route.decisions] == [
        (None, "waits for warm"),
        ("warm", ""),
    ]


@in_virtual_time
async def test_it_waits_no_longer_than_computing_would_take() -> None:
    balancer = Balancer()
    before = now()
    warm, cold, _, _ = await one_waits(balancer)
    await asyncio.sleep(SAVED_S - 0.1)
    assert cold.unanswered == []
    await asyncio.sleep(0.2)
    assert (len(cold.unanswered), warm.unanswered) == (1, [])
    assert now() - before == pytest.approx(SAVED_S + 0.1)


@in_virtual_time
async def test_others_pass_by_who_waits_for_an_agent_in_particular() -> None:
    balancer = Balancer()
    warm, cold, first, _ = await one_waits(balancer)
    await balancer.ask(prompt="hi", request_id="req_3")
    (short,) = cold.unanswered
    cold.answer()
    another = await balancer.ask(prompt="there", request_id="req_4")
    assert balancer.dispatcher.waiting == 2
    cold.finish(short)
    await settle()
    assert len(cold.unanswered) == 1
    assert cold.calls[cold.unanswered[0]].prompt == "there"
    warm.finish(first)
    await settle()
    assert warm.calls[warm.unanswered[0]].prompt == LONG
    await another.leave()


@in_virtual_time
async def test_who_would_rather_wait_leaves_a_free_slot_to_whoever_comes_next() -> None:
    balancer = Balancer()
    warm, cold = balancer.agent("warm", slots=1), balancer.agent("cold", slots=1)
    await balancer.ask(prompt=LONG)
    first, second = (warm, cold) if warm.unanswered else (cold, warm)
    first.answer()
    caches(first, LONG)
    await balancer.ask(prompt="hi", request_id="req_2")
    second.answer()
    await balancer.ask(prompt=LONG, request_id="req_3")
    await balancer.ask(prompt="there", request_id="req_4")
    second.finish(second.running[0])
    await settle()
    assert [second.calls[call].prompt for call in second.unanswered] == ["there"]


@in_virtual_time
async def test_a_short_beginning_is_computed_rather_than_waited_for() -> None:
    balancer = Balancer()
    warm = balancer.agent("warm", slots=1)
    await balancer.ask(prompt="a" * 2000)
    warm.answer()
    cold = balancer.agent("cold", slots=1)
    await balancer.ask(prompt="a" * 2000, request_id="req_2")
    assert len(cold.unanswered) == 1


@in_virtual_time
async def test_so_many_wait_for_one_agent_that_its_slots_should_come_in_time() -> None:
    balancer = Balancer()
    await one_waits(balancer)
    cold = balancer.agent("colder", slots=8)
    for number in range(3):
        await balancer.ask(prompt=LONG, request_id=f"req_{number}")
    # 2 s a call: the third one would wait for as long as computing takes
    assert (balancer.dispatcher.waiting, len(cold.unanswered)) == (2, 2)


@pytest.mark.parametrize(
    "settings",
    [
        Settings(policy="least_busy"),
        Settings(queue_timeout_s=0),
        Settings(max_waiting=0),
        Settings(max_waiting_of_tenant=0),
        Settings(max_waiting_bytes=10),
    ],
    ids=lambda settings: settings.policy,
)
@in_virtual_time
async def test_nobody_is_held_where_waiting_is_not_wanted_or_not_possible(
    settings: Settings,
) -> None:
    balancer = Balancer(settings=settings)
    warm = balancer.agent("warm", slots=1)
    await balancer.ask(prompt=LONG)
    warm.answer()
    caches(warm, LONG)
    cold = balancer.agent("cold", slots=1)
    await balancer.ask(prompt=LONG, request_id="req_2")
    assert len(cold.unanswered) == 1


@in_virtual_time
async def test_nobody_with_a_deadline_is_held() -> None:
    balancer = Balancer()
    _, cold, _, _ = await one_waits(balancer)
    await balancer.ask(prompt=LONG, request_id="req_3", timeout_s=60.0)
    assert len(cold.unanswered) == 1


@in_virtual_time
async def test_who_leaves_while_it_waits_for_an_agent_is_forgotten() -> None:
    balancer = Balancer()
    _, cold, _, waiting = await one_waits(balancer)
    await waiting.leave()
    await asyncio.sleep(2 * SAVED_S)
    assert (balancer.dispatcher.waiting, cold.unanswered) == (0, [])


@in_virtual_time
async def test_who_waited_for_an_agent_that_dies_goes_elsewhere() -> None:
    balancer = Balancer()
    warm, cold, _, _ = await one_waits(balancer)
    other = balancer.agent("other", slots=1)
    warm.die()
    await asyncio.sleep(2 * LOOK_EVERY_S)
    assert (len(cold.unanswered), len(other.unanswered)) == (1, 1)
    cold.answer()
    cold.finish(cold.running[0])
    await settle()
    assert balancer.dispatcher.waiting == 0


@in_virtual_time
async def test_no_more_are_held_than_can_be_looked_at() -> None:
    balancer = Balancer()
    warm = balancer.agent("warm", slots=MOST_HELD * 4)
    for number in range(MOST_HELD * 4):
        await balancer.ask(prompt=LONG, request_id=f"req_{number}")
    warm.answer()
    cold = balancer.agent("cold", slots=256)
    for number in range(MOST_HELD + 5):
        await balancer.ask(prompt=LONG, request_id=f"late_{number}")
    assert balancer.dispatcher.waiting == MOST_HELD
    assert len(cold.unanswered) == 5
