"""Generations whose KV state goes along to the next agent, and what may happen on the way."""

from __future__ import annotations

import asyncio

from protocol import codec
from protocol.jsonrpc import ErrorObject, Request
from protocol.refusals import RefusalCode
from protocol.to_agent import ExportSequence
from tests.support.generations import Balancer, Generation
from tests.support.going_on import begun, ended
from tests.support.memory_agent import MemoryAgent
from tests.support.virtual_time import in_virtual_time, settle

# --- KV states on their way ---


def exporting(agent: MemoryAgent) -> list[int]:
    """Export questions that the agent was asked."""
    return [
        message.id
        for message in agent.received
        if isinstance(message, Request) and isinstance(message.params, ExportSequence)
        if isinstance(message.id, int)
    ]


async def handed_over(balancer: Balancer) -> tuple[MemoryAgent, MemoryAgent, Generation]:
    """A generation that is being moved from one agent to another, alike one."""
    first = balancer.agent("first", kv_key="same")
    one = await begun(balancer, first)
    second = balancer.agent("second", kv_key="same")
    balancer.dispatcher.evacuation.drain("first", deadline_s=0.0)
    await asyncio.sleep(0.01)
    assert len(exporting(first)) == 1
    assert balancer.dispatcher.requests()[0].state == "moving"
    return first, second, one


@in_virtual_time
async def test_an_engine_that_dies_while_its_state_is_exported_starts_one_call_not_two() -> None:
    balancer = Balancer()
    first, second, one = await handed_over(balancer)
    first.engine_dies()
    assert len(second.unanswered) == 1
    error = ErrorObject(code=int(RefusalCode.CANNOT_MOVE), message="gone")
    first.link.receive(codec.encode_error(exporting(first)[0], error))
    await settle()
    assert len(second.unanswered) == 1
    await ended(second)
    assert (one.sink.text, one.outcome.attempts) == ("abcd", 2)


@in_virtual_time
async def test_a_refused_export_goes_on_from_the_tokens() -> None:
    balancer = Balancer()
    first, second, one = await handed_over(balancer)
    error = ErrorObject(code=int(RefusalCode.CANNOT_MOVE), message="no")
    first.link.receive(codec.encode_error(exporting(first)[0], error))
    assert len(first.cancelled) == 1
    await ended(second)
    assert one.sink.text == "abcd"


@in_virtual_time
async def test_a_state_that_never_comes_is_not_waited_for_for_ever() -> None:
    balancer = Balancer()
    first, second, one = await handed_over(balancer)
    first.finish(first.running[0], "cancelled")
    await asyncio.sleep(29.0)
    assert second.unanswered == []
    await asyncio.sleep(2.0)
    await ended(second)
    assert one.sink.text == "abcd"


@in_virtual_time
async def test_the_source_s_death_while_its_state_is_on_the_way_starts_one_call() -> None:
    balancer = Balancer()
    first, second, one = await handed_over(balancer)
    first.die()
    await settle()
    assert len(second.unanswered) == 1
    await ended(second)
    assert one.sink.text == "abcd"


@in_virtual_time
async def test_a_client_that_leaves_while_its_state_is_on_the_way_starts_nothing() -> None:
    balancer = Balancer()
    first, second, one = await handed_over(balancer)
    await one.leave()
    first.confirm_cancels()
    await asyncio.sleep(60.0)
    assert second.calls == {}
    assert balancer.dispatcher.in_flight == 0
