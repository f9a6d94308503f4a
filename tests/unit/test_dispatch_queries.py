"""What holds for requests that take no slot, be they questions or batches of inputs to embed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from balancer.errors import (
    DrainingError,
    NoAgents,
    QueueFull,
    QueueTimeout,
    RequestCancelled,
    UpstreamFailed,
)
from protocol.refusals import RefusalCode
from tests.support.asking_fleet import AskingFleet
from tests.support.embedding_fleet import Fleet
from tests.support.memory_agent import MemoryAgent
from tests.support.query_fleet import QueryFleet, error_of
from tests.support.virtual_time import in_virtual_time, settle

AnyFleet = type[QueryFleet[Any]]
of_both_kinds = pytest.mark.parametrize("kind", [AskingFleet, Fleet], ids=["question", "batch"])


async def answer_first(agent: MemoryAgent) -> None:
    agent.answer_query(agent.unanswered_queries[0])
    await settle()


async def refuse_first(agent: MemoryAgent, code: RefusalCode, message: str = "no") -> None:
    agent.refuse_query(agent.unanswered_queries[0], code, message)
    await settle()


# --- when agents fail ---


@of_both_kinds
@in_virtual_time
async def test_an_agent_that_fails_is_avoided_and_pays_for_it(kind: AnyFleet) -> None:
    fleet = kind()
    one, two = fleet.agent("one", queries=6), fleet.agent("two")
    task = await fleet.submit()
    await refuse_first(one, RefusalCode.ENGINE_FAILED)
    await answer_first(two)
    assert task.result().attempts == 2
    agent = fleet.roster.agent("one")
    assert agent is not None
    assert agent.health.has_failed


@of_both_kinds
@in_virtual_time
async def test_one_good_answer_makes_up_for_a_failure(kind: AnyFleet) -> None:
    fleet = kind()
    one = fleet.agent("one", queries=5)
    await fleet.submit()
    await fleet.submit()
    agent = fleet.roster.agent("one")
    assert agent is not None
    await refuse_first(one, RefusalCode.ENGINE_FAILED)
    assert agent.health.has_failed
    await answer_first(one)
    assert not agent.health.has_failed


@of_both_kinds
@in_virtual_time
async def test_the_only_agent_s_failure_is_told(kind: AnyFleet) -> None:
    fleet = kind()
    agent = fleet.agent()
    task = await fleet.submit()
    await refuse_first(agent, RefusalCode.ENGINE_FAILED, "no memory")
    assert isinstance(error_of(task), UpstreamFailed)
    assert "no memory" in error_of(task).message


@of_both_kinds
@in_virtual_time
async def test_an_engine_s_death_is_waited_out_and_the_second_is_the_end(kind: AnyFleet) -> None:
    fleet = kind()
    agent = fleet.agent()
    task = await fleet.submit()
    for _ in range(2):
        assert not task.done()
        (call,) = agent.unanswered_queries
        agent.refuse_query(call, RefusalCode.ENGINE_FAILED, "died", signal="SIGKILL")
        await settle()
        assert not agent.unanswered_queries
        agent.heartbeat()
        await settle()
    assert error_of(task).details["reason"] == "poison_request"


@of_both_kinds
@in_virtual_time
async def test_an_agent_that_says_nothing_is_not_waited_for(kind: AnyFleet) -> None:
    fleet = kind(query_timeout_s=10.0, heartbeat_interval_s=300.0)
    one, two = fleet.agent("one", queries=6), fleet.agent("two")
    task = await fleet.submit()
    await asyncio.sleep(9.9)
    assert not two.queries_asked
    await asyncio.sleep(0.2)
    assert one.cancelled == one.queries_asked
    await answer_first(two)
    assert task.result().attempts == 2
    await answer_first(one)  # too late, and no harm


@of_both_kinds
@in_virtual_time
async def test_agents_that_all_say_nothing_end_the_request(kind: AnyFleet) -> None:
    fleet = kind(query_timeout_s=10.0)
    agent = fleet.agent()
    task = await fleet.submit()
    for _ in range(60):
        await asyncio.sleep(1.0)
        for call in set(agent.unanswered_queries) & set(agent.cancelled):
            agent.refuse_query(call, RefusalCode.CANCELLED)
        fleet.roster.take_back_ejected()  # the liveness service does that
    assert error_of(task).details["reason"] == "stalled"
    assert len(agent.queries_asked) == 4
    assert fleet.queries.in_flight == 0


@of_both_kinds
@in_virtual_time
async def test_who_lost_its_agent_may_wait_and_be_worked_on_anew(kind: AnyFleet) -> None:
    fleet = kind(query_timeout_s=20.0, queue_timeout_s=20.0, heartbeat_interval_s=300.0)
    one = fleet.agent("one")
    task = await fleet.submit()
    await asyncio.sleep(15.0)
    one.die()
    await asyncio.sleep(15.0)
    two = fleet.agent("two")
    await asyncio.sleep(15.0)
    await answer_first(two)
    assert task.result().attempts == 2
    assert len(two.queries_asked) == 1


@of_both_kinds
@in_virtual_time
async def test_an_agent_without_room_is_asked_again_when_it_says_that_it_has_some(
    kind: AnyFleet,
) -> None:
    fleet = kind()
    agent = fleet.agent()
    task = await fleet.submit()
    await refuse_first(agent, RefusalCode.NO_FREE_SLOT)
    assert (fleet.queries.waiting, agent.unanswered_queries) == (1, [])
    agent.heartbeat()
    await settle()
    await answer_first(agent)
    assert task.result().attempts == 1


@of_both_kinds
@in_virtual_time
async def test_an_agent_that_refuses_again_and_again_holds_no_request_for_ever(
    kind: AnyFleet,
) -> None:
    fleet = kind(queue_timeout_s=20.0)
    agent = fleet.agent()
    task = await fleet.submit()
    for _ in range(30):
        for call in agent.unanswered_queries:
            agent.refuse_query(call, RefusalCode.NO_FREE_SLOT)
        agent.heartbeat()
        await asyncio.sleep(1.0)
    assert isinstance(error_of(task), QueueTimeout)
    assert len(agent.queries_asked) <= 21


# --- who waits ---


@of_both_kinds
@in_virtual_time
async def test_a_request_for_a_model_that_left_lately_waits_for_an_agent(kind: AnyFleet) -> None:
    fleet = kind()
    fleet.agent().die()
    task = await fleet.submit()
    assert fleet.queries.waiting == 1
    agent = fleet.agent("two")
    await settle()
    await answer_first(agent)
    assert task.result().attempts == 1


@of_both_kinds
@in_virtual_time
async def test_waiting_ends_with_the_queue_timeout(kind: AnyFleet) -> None:
    fleet = kind(queue_timeout_s=5.0, heartbeat_interval_s=300.0)
    fleet.agent(queries=1)
    await fleet.submit()
    task = await fleet.submit()
    await asyncio.sleep(5.1)
    error = error_of(task)
    assert isinstance(error, QueueTimeout)
    assert error.retry_after_s is not None
    assert fleet.queries.waiting == 0


@pytest.mark.parametrize(
    ("settings", "tenants"),
    [
        ({"max_waiting": 1}, ("x", "y", "z")),
        ({"max_waiting_of_tenant": 1}, ("x", "x", "x")),
        ({"max_waiting_bytes": 15}, ("x", "y", "z")),
    ],
)
@of_both_kinds
@in_virtual_time
async def test_only_so_many_may_wait(
    kind: AnyFleet, settings: Any, tenants: tuple[str, ...]
) -> None:
    fleet = kind(**settings)
    fleet.agent(queries=1)
    first, second, third = [await fleet.submit(tenant=one, body_bytes=10) for one in tenants]
    error = error_of(third)
    assert isinstance(error, QueueFull)
    assert error.retry_after_s is not None
    assert [first.done(), second.done()] == [False, False]


@of_both_kinds
@in_virtual_time
async def test_without_waiting_the_answer_is_at_once(kind: AnyFleet) -> None:
    fleet = kind(queue_timeout_s=0.0)
    assert isinstance(error_of(await fleet.submit()), NoAgents)
    fleet.agent(queries=1)
    first = await fleet.submit()
    assert isinstance(error_of(await fleet.submit()), QueueFull)
    assert not first.done()


# --- what ends it from outside ---


@of_both_kinds
@in_virtual_time
async def test_an_operator_sees_requests_and_may_end_them(kind: AnyFleet) -> None:
    fleet = kind()
    fleet.agent(queries=1)
    tasks = [await fleet.submit() for _ in range(3)]
    await asyncio.sleep(1.0)
    rows = fleet.queries.requests()
    assert [(row.id, row.state, row.agent, row.position) for row in rows] == [
        ("req_0", "running", "one", None),
        ("req_1", "waiting", None, 1),
        ("req_2", "waiting", None, 2),
    ]
    assert [(row.attempts, row.age_ms) for row in rows] == [(1, 1000.0), (0, 1000.0), (0, 1000.0)]
    for request_id in ("req_2", "req_1", "req_0"):
        assert fleet.queries.cancel(request_id)
    assert not fleet.queries.cancel("req_9")
    await settle()
    assert [type(error_of(task)) for task in tasks] == [RequestCancelled] * 3


@of_both_kinds
@in_virtual_time
async def test_what_runs_may_end_while_the_balancer_drains_and_nothing_new_begins(
    kind: AnyFleet,
) -> None:
    fleet = kind()
    agent = fleet.agent(queries=1)
    first, second = await fleet.submit(), await fleet.submit()
    fleet.queries.begin_draining()
    assert isinstance(error_of(await fleet.submit()), DrainingError)
    drained = asyncio.ensure_future(fleet.queries.drained())
    await answer_first(agent)
    assert first.result().attempts == 1
    assert not drained.done()
    fleet.queries.end_all()
    await settle()
    assert isinstance(error_of(second), DrainingError)
    assert drained.done()
