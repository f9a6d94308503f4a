"""Batches of inputs that wait for agents, give way to others, or are left by their clients."""

from __future__ import annotations

import asyncio

import pytest

from balancer.dispatch.embedding import (
    LARGEST_PART,
    MOST_PASSED_OVER,
    SMALLEST_PART,
)
from balancer.errors import (
    GenerationTimeout,
)
from protocol.refusals import RefusalCode
from tests.support.embedding_fleet import SIZE, Fleet, answer_all, asked, is_whole, texts
from tests.support.memory_agent import MemoryAgent
from tests.support.query_fleet import error_of
from tests.support.virtual_time import in_virtual_time, settle

# --- waiting and leaving ---


@in_virtual_time
async def test_who_finds_no_room_waits_and_is_served_in_order() -> None:
    fleet = Fleet()
    agent = fleet.agent(queries=1)
    tasks = [await fleet.ask((text,)) for text in ("a", "b", "c")]
    assert (len(agent.questions), fleet.dispatcher.waiting) == (1, 2)
    assert fleet.sample("paddler_embeddings_waiting") == 2
    rows = [(row.id, row.state, row.position) for row in fleet.dispatcher.requests()]
    assert rows == [("req_0", "running", None), ("req_1", "waiting", 1), ("req_2", "waiting", 2)]
    await answer_all(agent)
    assert asked(agent) == [("a",), ("b",), ("c",)]
    assert all(is_whole(task, (text,)) for task, text in zip(tasks, "abc", strict=True))


@in_virtual_time
async def test_a_tenant_with_many_requests_does_not_keep_another_from_its_turn() -> None:
    fleet = Fleet()
    agent = fleet.agent(queries=1)
    for number in range(12):
        await fleet.ask((str(number),), tenant="many")
    await fleet.ask(("x",), tenant="one")
    while agent.unanswered_questions:
        await asyncio.sleep(1.0)
        agent.embed(agent.unanswered_questions[0])
        await settle()
    assert [question[0] for question in asked(agent)].index("x") < 8


@in_virtual_time
async def test_an_agent_that_comes_later_serves_those_who_wait() -> None:
    fleet = Fleet()
    task = await fleet.ask()
    await asyncio.sleep(5.0)
    agent = fleet.agent()
    await answer_all(agent)
    assert task.result().queue_ms == 5000.0


@in_virtual_time
async def test_a_batch_in_the_middle_waits_ahead_of_those_that_have_not_begun() -> None:
    fleet = Fleet()
    agent = fleet.agent(queries=1)
    inputs = texts(3, LARGEST_PART)
    task = await fleet.ask(inputs)
    agent.embed(agent.unanswered_questions[0])
    agent.refuse_query(agent.unanswered_questions[0], RefusalCode.NO_FREE_SLOT)
    await fleet.ask(("later",))
    assert fleet.dispatcher.waiting == 2
    agent.heartbeat()
    await answer_all(agent)
    assert asked(agent)[-1] == ("later",)
    assert is_whole(task, inputs)


@in_virtual_time
async def test_the_request_s_own_deadline_ends_it_and_what_runs() -> None:
    fleet = Fleet()
    agent = fleet.agent()
    task = await fleet.ask(timeout_s=3.0)
    await asyncio.sleep(3.1)
    assert isinstance(error_of(task), GenerationTimeout)
    assert agent.cancelled == list(agent.questions)


@in_virtual_time
async def test_a_client_that_leaves_stops_every_agent() -> None:
    fleet = Fleet()
    agents = [fleet.agent(name) for name in ("one", "two")]
    task = await fleet.ask(texts(32))
    task.cancel()
    await settle()
    assert all(agent.cancelled == list(agent.questions) for agent in agents)
    assert fleet.dispatcher.in_flight == 0


@in_virtual_time
async def test_smaller_parts_than_a_micro_batch_are_not_made() -> None:
    fleet = Fleet()
    agents = [fleet.agent(str(index)) for index in range(4)]
    await fleet.ask(texts(4, SMALLEST_PART // 2))
    assert sorted(len(agent.questions) for agent in agents) == [0, 0, 1, 1]


@in_virtual_time
async def test_a_refusal_is_no_way_to_the_front_of_the_queue() -> None:
    fleet = Fleet()
    agent = fleet.agent(queries=1)
    await fleet.ask(("greedy",), tenant="greedy")
    await asyncio.sleep(5.0)
    agent.embed(agent.unanswered_questions[0])
    await settle()
    await fleet.ask(("refused",), tenant="greedy")
    await fleet.ask(("other",), tenant="other")
    await asyncio.sleep(1.0)
    agent.refuse_query(agent.unanswered_questions[0], RefusalCode.NO_FREE_SLOT)
    agent.heartbeat()
    await answer_all(agent)
    assert [inputs[0] for inputs in asked(agent)] == ["greedy", "refused", "other", "refused"]


@in_virtual_time
async def test_a_batch_that_is_given_vectors_may_wait_anew_for_the_rest() -> None:
    fleet = Fleet(queue_timeout_s=20.0)
    agent = fleet.agent(queries=1)
    inputs = texts(2, LARGEST_PART)
    task = await fleet.ask(inputs)
    await asyncio.sleep(19.0)
    agent.embed(agent.unanswered_questions[0])
    agent.refuse_query(agent.unanswered_questions[0], RefusalCode.NO_FREE_SLOT)
    await asyncio.sleep(19.0)
    agent.heartbeat()
    await answer_all(agent)
    assert is_whole(task, inputs)


async def avoiding(fleet: Fleet, agent: MemoryAgent, count: int) -> None:
    """Have so many requests fail on the agent, which stays well, and wait for another."""
    for number in range(count):
        for _ in range(2):
            await fleet.ask(("good",))
            agent.embed(agent.unanswered_questions[0])
            await settle()
        await fleet.ask((f"bad {number}",))
        agent.refuse_query(agent.unanswered_questions[0], RefusalCode.ENGINE_FAILED)
        await settle()
    assert fleet.dispatcher.waiting == count


@in_virtual_time
async def test_any_number_that_avoid_an_agent_leave_it_to_the_others() -> None:
    fleet = Fleet()
    fleet.agent("full", queries=1)
    await fleet.ask(("long",))
    agent = fleet.agent("two")
    await avoiding(fleet, agent, MOST_PASSED_OVER + 2)
    task = await fleet.ask(("x",))
    agent.refuse_query(agent.unanswered_questions[0], RefusalCode.NO_FREE_SLOT)
    agent.heartbeat()
    await answer_all(agent)
    assert is_whole(task, ("x",))


@in_virtual_time
async def test_who_comes_does_not_wait_behind_those_that_avoid_the_free_agent() -> None:
    fleet = Fleet()
    fleet.agent("full", queries=1)
    await fleet.ask(("long",))
    agent = fleet.agent("two")
    await avoiding(fleet, agent, 1)
    await fleet.ask(("x",))
    assert asked(agent)[-1] == ("x",)


@in_virtual_time
async def test_a_long_batch_gives_way_to_tenants_that_were_served_less() -> None:
    fleet = Fleet()
    agent = fleet.agent(queries=1)
    inputs = texts(6, LARGEST_PART)
    long = await fleet.ask(inputs, tenant="long")
    short = await fleet.ask(("x",), tenant="short")
    for _ in range(2):
        await asyncio.sleep(40.0)
        agent.embed(agent.unanswered_questions[0])
        await settle()
    assert is_whole(short, ("x",))
    await answer_all(agent)
    assert is_whole(long, inputs)


@in_virtual_time
async def test_an_agent_that_dies_of_every_request_is_left_out_for_a_while() -> None:
    fleet = Fleet()
    task = await fleet.ask()
    for _ in range(3):
        agent = fleet.agent()
        assert len(agent.questions) == 1
        agent.die()
        await settle()
    agent = fleet.agent()
    await settle()
    assert (agent.questions, fleet.dispatcher.waiting) == ({}, 1)
    await asyncio.sleep(6.0)
    fleet.roster.take_back_ejected()
    await answer_all(agent)
    assert is_whole(task, ("hi",))


@in_virtual_time
async def test_refusals_tell_nothing_of_how_long_requests_take() -> None:
    fleet = Fleet()
    agent = fleet.agent(queries=1)
    await fleet.ask()
    await asyncio.sleep(8.0)
    agent.embed(agent.unanswered_questions[0])
    usual = await retry_after_s(fleet, agent)
    for _ in range(20):
        task = await fleet.ask()
        await asyncio.sleep(0.01)
        agent.refuse_query(agent.unanswered_questions[0], RefusalCode.NO_FREE_SLOT)
        task.cancel()
        await settle()
        agent.heartbeat()
    assert usual == await retry_after_s(fleet, agent) == 8


async def retry_after_s(fleet: Fleet, agent: MemoryAgent) -> int | None:
    """What is told to who finds the agent's only place just taken."""
    running, late = await fleet.ask(), await fleet.ask(timeout_s=0.001)
    await asyncio.sleep(0.01)
    running.cancel()
    await settle()
    agent.refuse_query(agent.unanswered_questions[0], RefusalCode.CANCELLED)
    return error_of(late).retry_after_s


@pytest.mark.parametrize("sign", ["steps", "answers"])
@in_virtual_time
async def test_an_agent_at_work_is_given_more_time_and_never_blamed(sign: str) -> None:
    fleet = Fleet(query_timeout_s=10.0, heartbeat_interval_s=300.0)
    slow = fleet.agent("slow", queries=8)
    tasks = [await fleet.ask((f"slow {number}",)) for number in range(4)]
    late = tuple(slow.unanswered_questions)
    other = fleet.agent("other")
    for second in range(1, 49):
        if sign == "steps":
            slow.heartbeat(slow.status(engine_steps=second))
        else:
            quick = await fleet.ask(("quick",))
            await answer_quick(slow, other)
            assert quick.done()
        await asyncio.sleep(1.0)
    assert not slow.cancelled
    await asyncio.sleep(2.0)
    assert sorted(slow.cancelled) == sorted(late)
    agent = fleet.roster.agent("slow")
    assert agent is not None
    assert not agent.is_ejected
    assert not agent.health.has_failed
    await answer_all(other)
    assert all(task.result().agents == ("other",) for task in tasks)


async def answer_quick(*agents: MemoryAgent) -> None:
    """Answer what is quick, and leave the rest."""
    for agent in agents:
        for call in tuple(agent.unanswered_questions):
            if agent.questions[call].inputs == ("quick",):
                agent.embed(call)
    await settle()


@in_virtual_time
async def test_vectors_of_a_wrong_size_are_blamed_on_who_made_them() -> None:
    fleet = Fleet()
    wrong, right = fleet.agent("wrong"), fleet.agent("right")
    inputs = texts(32)
    task = await fleet.ask(inputs)
    (call,) = wrong.unanswered_questions
    count = len(wrong.questions[call].inputs)
    wrong.embed(call, dimensions=SIZE + 1, vectors=bytes(4 * (SIZE + 1) * count))
    await answer_all(right)
    assert is_whole(task, inputs)
    assert task.result().agents == ("right",)


@in_virtual_time
async def test_a_batch_of_which_nothing_is_done_may_go_to_another_kind_of_agent() -> None:
    fleet = Fleet()
    one = fleet.agent("one", queries=8)
    two = fleet.agent("two", resume_key="other")
    task = await fleet.ask()
    one.refuse_query(one.unanswered_questions[0], RefusalCode.NO_FREE_SLOT)
    await answer_all(two)
    assert task.result().agents == ("two",)
    one.heartbeat()
    task = await fleet.ask()
    one.refuse_query(one.unanswered_questions[0], RefusalCode.ENGINE_FAILED)
    await answer_all(two)
    assert task.result().agents == ("two",)
