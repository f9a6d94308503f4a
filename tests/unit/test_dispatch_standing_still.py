"""Generations whose agent stands still, or says what nobody can read: they go on elsewhere."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from balancer.errors import (
    UpstreamFailed,
)
from balancer.policy.failover import MOST_GARBLED
from balancer.settings import Settings
from protocol.to_balancer import PrefillProgress, Tokens
from tests.support.generations import Balancer, finish_all
from tests.support.going_on import begun, ended
from tests.support.virtual_time import in_virtual_time, settle

# --- standing still ---


@in_virtual_time
async def test_a_call_without_progress_is_taken_away_and_its_slot_kept_until_confirmed() -> None:
    balancer = Balancer(settings=Settings(progress_timeout_s=30.0))
    still, other = balancer.agent("still", slots=2), balancer.agent("other", slots=1)
    one = await begun(balancer, still)
    balancer.dispatcher.evacuation.move_stalled()
    await asyncio.sleep(29.0)
    balancer.dispatcher.evacuation.move_stalled()
    assert other.unanswered == []
    await asyncio.sleep(2.0)
    balancer.dispatcher.evacuation.move_stalled()
    (call,) = still.cancelled
    still.tokens(call, [120], "late")
    await ended(other)
    assert one.sink.text == "abcd"
    rows = {row.name: row.slots.free for row in balancer.roster.snapshot()}
    assert rows["still"] == 1
    still.confirm_cancels()
    rows = {row.name: row.slots.free for row in balancer.roster.snapshot()}
    assert rows["still"] == 2


@in_virtual_time
async def test_when_it_is_taken_away_and_who_gets_it_follows_the_settings_in_force() -> None:
    balancer = Balancer(settings=Settings(policy="round_robin", progress_timeout_s=30.0))
    still, other = balancer.agent("still"), balancer.agent("other")
    one = await begun(balancer, still)
    balancer.dispatcher.evacuation.move_stalled()
    balancer.settings.replace(Settings(policy="least_busy", progress_timeout_s=5.0))
    await asyncio.sleep(6.0)
    balancer.dispatcher.evacuation.move_stalled()
    await ended(other)
    assert one.sink.text == "abcd"
    (route,) = balancer.dispatcher.routes("req_1")
    assert [one.policy for one in route.decisions] == ["round_robin", "least_busy"]


@pytest.mark.parametrize("excuse", ["prefill", "paused", "held"])
@in_virtual_time
async def test_a_call_that_has_a_reason_to_stand_is_left_alone(excuse: str) -> None:
    balancer = Balancer(settings=Settings(progress_timeout_s=30.0))
    agent = balancer.agent()
    one = await begun(balancer, agent, "")
    balancer.agent("other")
    (call,) = agent.running
    for second in range(100):
        if excuse == "prefill":
            progress = PrefillProgress(call, second, 100)
            agent.say(Tokens(calls=(), token_ids=(), deltas=(), prefill=(progress,)))
        elif excuse == "paused":
            one.flow.pause()
        else:
            agent.heartbeat(agent.status(running=(), paused=(call,)))
        await asyncio.sleep(1.0)
        balancer.dispatcher.evacuation.move_stalled()
    assert agent.cancelled == []


@pytest.mark.parametrize("others_go_on", [True, False])
@in_virtual_time
async def test_a_call_that_stands_still_for_others_is_left_alone_while_these_go_on(
    others_go_on: bool,
) -> None:
    balancer = Balancer(settings=Settings(progress_timeout_s=30.0))
    agent = balancer.agent(slots=3)
    for _ in range(3):
        await balancer.ask()
    works, waits, waits_too = agent.answer()
    agent.heartbeat(agent.status(waiting=(waits, waits_too)))
    other = balancer.agent("other", slots=3)
    for _ in range(100):
        if others_go_on:
            agent.tokens(works, [1], "x")
        await asyncio.sleep(1.0)
        balancer.dispatcher.evacuation.move_stalled()
    assert set(agent.cancelled) == (set() if others_go_on else {works, waits, waits_too})
    assert len(other.calls) == len(agent.cancelled)


@in_virtual_time
async def test_a_paused_call_is_no_proof_that_an_agent_works_for_others() -> None:
    balancer = Balancer(settings=Settings(progress_timeout_s=30.0))
    agent = balancer.agent(slots=2)
    paused = await balancer.ask()
    await balancer.ask()
    _, waits = agent.answer()
    paused.flow.pause()
    agent.heartbeat(agent.status(waiting=(waits,)))
    balancer.agent("other")
    for _ in range(35):
        await asyncio.sleep(1.0)
        balancer.dispatcher.evacuation.move_stalled()
    assert agent.cancelled == [waits]


@in_virtual_time
async def test_a_call_that_was_not_taken_yet_is_not_excused_by_waiting() -> None:
    balancer = Balancer(settings=Settings(progress_timeout_s=30.0))
    agent = balancer.agent(slots=2)
    await balancer.ask()
    (works,) = agent.answer()
    await balancer.ask()
    (unanswered,) = agent.unanswered
    agent.heartbeat(agent.status(waiting=(unanswered,)))
    balancer.agent("other")
    for _ in range(35):
        agent.tokens(works, [1], "x")
        await asyncio.sleep(1.0)
        balancer.dispatcher.evacuation.move_stalled()
    assert agent.cancelled == [unanswered]


# --- waiting for others than the agent that failed ---


@pytest.mark.parametrize("avoiding", [1, 17, 40])
@in_virtual_time
async def test_who_waits_behind_those_that_avoid_an_agent_gets_its_slot(avoiding: int) -> None:
    balancer = Balancer()
    failing = balancer.agent("failing", slots=avoiding)
    busy = balancer.agent("busy", slots=1)
    ones = [await balancer.ask(prompt=str(n)) for n in range(avoiding + 1)]
    failing.answer()
    busy.answer()
    behind = await balancer.ask()
    calls = ",".join(map(str, failing.running)).encode()
    with capture_logs():
        failing.link.receive(
            b'{"jsonrpc":"2.0","method":"tokens","params":{"calls":[%s],"token_ids":"?"}}' % calls
        )
    failing.confirm_cancels()
    assert [failing.calls[call].prompt for call in failing.unanswered] == ["hi"]
    await finish_all(failing)
    assert behind.outcome.agent == "failing"
    await finish_all(busy)
    assert [one.outcome.agent for one in ones] == ["busy"] * (avoiding + 1)


# --- what cannot be read ---

UNREADABLE = (
    b'{"jsonrpc":"2.0","method":"tokens","params":{"calls":[%d],"token_ids":[["?"]],"deltas":[""]}}',
    b'{"jsonrpc":"2.0","method":"tokens","params":{"calls":[%d],"token_ids":[[1]],"delt',
    b'[{"jsonrpc":"2.0","method":"tok\xffens","params":{"calls":[%d]}}]',
)


@pytest.mark.parametrize("frame", UNREADABLE)
@in_virtual_time
async def test_a_stream_with_a_step_that_cannot_be_read_goes_on_elsewhere_without_a_hole(
    frame: bytes,
) -> None:
    balancer = Balancer()
    garbling, other = balancer.agent("garbling", slots=1), balancer.agent("other", slots=1)
    one = await begun(balancer, garbling)
    (call,) = garbling.running
    with capture_logs():
        garbling.link.receive(frame % call)
    garbling.tokens(call, [100], "d")
    await ended(other)
    assert one.sink.text == "abcd"
    assert one.outcome.agent == "other"
    assert garbling.cancelled == [call]
    assert balancer.sample("paddler_generation_moves_total", reason="garbled") == 1


@pytest.mark.parametrize("frame", UNREADABLE)
@in_virtual_time
async def test_where_there_is_no_other_agent_it_goes_on_with_the_same(frame: bytes) -> None:
    balancer = Balancer()
    agent = balancer.agent(slots=1)
    one = await begun(balancer, agent)
    (call,) = agent.running
    with capture_logs():
        agent.link.receive(frame % call)
    agent.confirm_cancels()
    await ended(agent)
    assert one.sink.text == "abcd"


@in_virtual_time
async def test_who_is_never_said_a_clear_word_is_told_so_in_the_end() -> None:
    balancer = Balancer()
    agent = balancer.agent(slots=1)
    one = await balancer.ask()
    with capture_logs():
        while not one.task.done():
            (call,) = agent.answer()
            agent.link.receive(UNREADABLE[0] % call)
            agent.confirm_cancels()
            await settle()
    assert isinstance(one.error, UpstreamFailed)
    assert one.error.details["reason"] == "garbled"
    assert len(agent.calls) == MOST_GARBLED + 1


@in_virtual_time
async def test_what_cannot_be_read_hurts_no_client_that_left() -> None:
    balancer = Balancer()
    agent, other = balancer.agent(slots=1), balancer.agent("other")
    one = await begun(balancer, agent)
    await one.leave()
    with capture_logs():
        agent.link.receive(b"?")
    assert other.unanswered == []


@in_virtual_time
async def test_a_client_that_does_not_read_is_paused_on_the_next_agent_too() -> None:
    balancer = Balancer()
    dying, other = balancer.agent("dying"), balancer.agent("other", slots=1)
    one = await begun(balancer, dying)
    one.flow.pause()
    dying.die()
    assert other.paused == other.unanswered
    one.flow.resume()
    assert other.paused == []
    await ended(other)
    assert one.sink.text == "abcd"
