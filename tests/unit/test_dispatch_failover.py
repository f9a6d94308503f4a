"""Generations whose agent dies, fails or stands still: they go on elsewhere, unnoticed."""

from __future__ import annotations

import asyncio

import pytest

from balancer.dispatch.admission import late_text
from balancer.errors import (
    DeadlineUnreachable,
    GenerationTimeout,
    QueueTimeout,
    UpstreamFailed,
)
from balancer.settings import Settings
from protocol.generation import ReasoningDelta
from protocol.jsonrpc import RpcCode
from protocol.refusals import RefusalCode
from protocol.to_balancer import Tokens
from tests.support.generations import Balancer, finish_all
from tests.support.going_on import begun, ended
from tests.support.virtual_time import in_virtual_time, settle


@in_virtual_time
async def test_a_stream_whose_agent_is_killed_goes_on_at_the_next_character() -> None:
    balancer = Balancer()
    dying, other = balancer.agent("dying"), balancer.agent("other", slots=1)
    one = await begun(balancer, dying)
    dying.die()
    (call,) = other.unanswered
    resume = other.calls[call].resume
    assert resume is not None
    assert (resume.token_ids, resume.emitted_chars) == ((97, 98), 2)
    await ended(other)
    assert one.sink.text == "abcd"
    assert (one.outcome.agent, one.outcome.attempts) == ("other", 2)
    assert one.outcome.usage.completion_tokens == 4
    assert one.sink.agents == ["dying"]
    assert balancer.sample("paddler_generation_moves_total", reason="link_lost") == 1
    assert balancer.sample("paddler_generation_move_pause_seconds_count") == 1


@in_virtual_time
async def test_before_its_first_token_a_request_simply_begins_again() -> None:
    balancer = Balancer()
    dying, other = balancer.agent("dying"), balancer.agent("other", slots=1)
    one = await begun(balancer, dying, "")
    dying.die()
    (call,) = other.unanswered
    assert other.calls[call].resume is None
    await ended(other, "all")
    assert (one.sink.text, one.outcome.agent) == ("all", "other")


@in_virtual_time
async def test_what_mirostat_remembers_goes_along() -> None:
    balancer = Balancer()
    dying, other = balancer.agent("dying"), balancer.agent("other", slots=1)
    await begun(balancer, dying, "")
    (call,) = dying.running
    for state in ((9.5,), (8.25,)):
        dying.say(Tokens(calls=(call,), token_ids=((1,),), deltas=("x",), sampler_states=(state,)))
    dying.die()
    resume = other.calls[other.unanswered[0]].resume
    assert resume is not None
    assert resume.sampler_state == (8.25,)
    await finish_all(other)


@in_virtual_time
async def test_characters_of_reasoning_count_as_emitted() -> None:
    balancer = Balancer()
    dying, other = balancer.agent("dying"), balancer.agent("other", slots=1)
    await begun(balancer, dying, "a")
    (call,) = dying.running
    delta = (ReasoningDelta("thought"),)
    dying.say(Tokens(calls=(call,), token_ids=((5,),), deltas=(delta,)))
    dying.die()
    resume = other.calls[other.unanswered[0]].resume
    assert resume is not None
    assert resume.emitted_chars == 8
    await finish_all(other)


@in_virtual_time
async def test_an_agent_may_die_again_and_again() -> None:
    balancer = Balancer()
    agents = [balancer.agent("0", slots=1)]
    one = await begun(balancer, agents[0], "a")
    for number in range(1, 12):
        agents.append(balancer.agent(str(number), slots=1))
        agents[-2].die()
        (call,) = agents[-1].answer()
        agents[-1].tokens(call, [97 + number], chr(97 + number))
    agents[-1].tokens_sent[call] = 12
    agents[-1].finish(call)
    await settle()
    assert one.sink.text == "abcdefghijkl"
    assert one.outcome.attempts == 12


@in_virtual_time
async def test_tokens_go_on_only_where_they_mean_the_same() -> None:
    balancer = Balancer()
    dying = balancer.agent("dying", resume_key="this")
    stranger = balancer.agent("stranger", slots=1, resume_key="that")
    one = await begun(balancer, dying)
    dying.die()
    assert (stranger.unanswered, balancer.dispatcher.waiting) == ([], 1)
    newcomer = await balancer.ask()
    assert len(stranger.unanswered) == 1, "others are not held up by it"
    await finish_all(stranger)
    alike = balancer.agent("alike", slots=1, resume_key="this")
    await ended(alike)
    assert (one.sink.text, newcomer.outcome.agent) == ("abcd", "stranger")


@in_virtual_time
async def test_without_another_agent_it_waits_ahead_of_those_who_have_not_begun() -> None:
    balancer = Balancer()
    dying = balancer.agent("dying", slots=1)
    await balancer.ask()
    (first,) = dying.answer()
    dying.tokens(first, [97], "a")
    waiting = [await balancer.ask() for _ in range(3)]
    dying.die()
    await asyncio.sleep(1.0)
    late = balancer.agent("late", slots=1)
    assert late.calls[late.unanswered[0]].resume is not None
    await finish_all(late)
    assert {one.outcome.agent for one in waiting} == {"late"}


@in_virtual_time
async def test_one_that_began_passes_an_older_one_that_has_not() -> None:
    balancer = Balancer()
    small = balancer.agent("small", slots=1, model="other")
    balancer.agent("full", slots=0)
    older = await balancer.ask("demo")
    younger = await balancer.ask("other")
    (call,) = small.answer()
    small.tokens(call, [97], "a")
    small.die()
    both = balancer.agent("both", slots=1, model="demo", aliases=("other",))
    assert both.calls[both.unanswered[0]].resume is not None
    await finish_all(both)
    assert (older.outcome.agent, younger.outcome.agent) == ("both", "both")


@in_virtual_time
async def test_while_nobody_can_go_on_the_clients_own_deadline_holds() -> None:
    balancer = Balancer(settings=Settings(queue_timeout_s=600.0))
    dying = balancer.agent("dying")
    one = await balancer.ask(timeout_s=20.0)
    dying.tokens(dying.answer()[0], [97], "a")
    dying.die()
    with pytest.raises(GenerationTimeout):
        await one.task


@in_virtual_time
async def test_the_queue_timeout_counts_from_the_breaking_off() -> None:
    balancer = Balancer(settings=Settings(queue_timeout_s=60.0))
    dying = balancer.agent("dying")
    one = await begun(balancer, dying)
    await asyncio.sleep(300.0)
    dying.die()
    await asyncio.sleep(59.0)
    assert not one.task.done()
    await asyncio.sleep(2.0)
    assert isinstance(one.error, QueueTimeout)


@in_virtual_time
async def test_the_calls_of_a_dead_engine_go_on_elsewhere() -> None:
    balancer = Balancer()
    broken, other = balancer.agent("broken", slots=2), balancer.agent("other", slots=1)
    one = await begun(balancer, broken)
    broken.slots = 0
    broken.engine_dies()
    await ended(other)
    assert (one.sink.text, one.outcome.agent) == ("abcd", "other")


@in_virtual_time
async def test_a_request_under_which_engines_die_is_stopped_after_two() -> None:
    balancer = Balancer()
    agents = [balancer.agent(str(number)) for number in range(4)]
    one = await balancer.ask()
    for _ in range(2):
        (busy,) = [agent for agent in agents if agent.unanswered]
        busy.answer()
        busy.engine_dies()
    await settle()
    assert isinstance(one.error, UpstreamFailed)
    assert one.error.details["reason"] == "poison_request"
    assert sum(len(agent.calls) for agent in agents) == 2


@pytest.mark.parametrize("code", [RefusalCode.ENGINE_FAILED, RpcCode.INTERNAL_ERROR])
@in_virtual_time
async def test_a_refusal_that_is_the_agents_fault_is_tried_elsewhere(code: int) -> None:
    balancer = Balancer()
    bad, good = balancer.agent("bad", slots=8), balancer.agent("good", slots=1)
    one = await balancer.ask()
    bad.refuse(bad.unanswered[0], code)
    await ended(good, "fine")
    assert (one.sink.text, one.outcome.attempts) == ("fine", 2)


@in_virtual_time
async def test_a_mistake_of_the_client_is_never_tried_elsewhere() -> None:
    balancer = Balancer()
    first, second = balancer.agent("first", slots=8), balancer.agent("second", slots=1)
    one = await balancer.ask()
    first.refuse(first.unanswered[0], RefusalCode.INVALID_TEMPLATE, "no such role")
    await settle()
    assert one.error.status == 400
    assert second.calls == {}


@in_virtual_time
async def test_what_another_agent_takes_up_differently_is_tried_at_a_third_or_fails() -> None:
    balancer = Balancer()
    dying = balancer.agent("dying")
    one = await begun(balancer, dying)
    second, third = balancer.agent("second", slots=8), balancer.agent("third", slots=1)
    dying.die()
    for _ in range(2):
        (agent,) = [agent for agent in (second, third) if agent.unanswered]
        agent.refuse(agent.unanswered[0], RefusalCode.RESUME_MISMATCH, "2 characters, not 3")
    await settle()
    assert isinstance(one.error, UpstreamFailed)
    assert one.error.details["reason"] == "resume_mismatch"
    assert one.error.retry_after_s


@in_virtual_time
async def test_an_agent_that_fails_everything_at_once_soon_gets_nothing() -> None:
    balancer = Balancer()
    good = [balancer.agent(f"good-{number}", slots=2) for number in range(3)]
    hole = balancer.agent("hole", slots=8)
    generations = []
    for _ in range(200):
        generations.append(await balancer.ask())
        while hole.unanswered:
            hole.refuse(hole.unanswered[0], RpcCode.INTERNAL_ERROR)
        for agent in good:
            for call in agent.answer():
                agent.tokens(call, [1], "x")
                agent.finish(call)
        await settle()
    assert all(one.task.done() and one.sink.text == "x" for one in generations)
    assert len(hole.calls) <= 5
    (row,) = [row for row in balancer.roster.snapshot() if row.name == "hole"]
    assert "ejected" in [issue.code for issue in row.issues]
    assert balancer.sample("paddler_agents_ejected_total") == 1


@in_virtual_time
async def test_an_agent_that_dies_of_every_call_and_is_back_at_once_soon_gets_nothing() -> None:
    balancer = Balancer()
    good = balancer.agent("good", slots=8)
    hole, given, generations = balancer.agent("hole", slots=8), 0, []
    for _ in range(20):
        for _ in range(2):
            generations.append(await balancer.ask())
        given += len(hole.calls)
        hole.answer()
        hole.die()
        hole = balancer.agent("hole", slots=8)
        await finish_all(good)
        await asyncio.sleep(0.6)
    assert all(one.outcome.agent == "good" for one in generations)
    assert 3 <= given <= 5


@in_virtual_time
async def test_an_ejected_agent_gets_one_call_later_and_more_when_that_goes_well() -> None:
    balancer = Balancer()
    agent, other = balancer.agent("agent", slots=8), balancer.agent("other", slots=0)
    other.slots = 1
    for _ in range(3):
        other.heartbeat()
        one = await balancer.ask()
        while agent.unanswered:
            agent.refuse(agent.unanswered[0], RpcCode.INTERNAL_ERROR)
        await finish_all(other)
        assert one.task.done()
    other.die()
    waiting = [await balancer.ask() for _ in range(3)]
    assert agent.unanswered == []
    await asyncio.sleep(6.0)
    balancer.roster.take_back_ejected()
    assert len(agent.unanswered) == 1
    await asyncio.sleep(1.0)
    agent.tokens(agent.answer()[0], [1], "x")
    await asyncio.sleep(4.0)
    balancer.roster.take_back_ejected()
    assert len(agent.unanswered) == 2
    await finish_all(agent)
    assert all(one.task.done() for one in waiting)


@in_virtual_time
async def test_reconnecting_does_not_end_an_ejection() -> None:
    balancer = Balancer()
    bad, good = balancer.agent("bad", slots=8), balancer.agent("good", slots=1)
    for _ in range(3):
        await balancer.ask()
        while bad.unanswered:
            bad.refuse(bad.unanswered[0], RpcCode.INTERNAL_ERROR)
        await finish_all(good)
    bad.die()
    back = balancer.agent("bad", slots=8)
    for _ in range(3):
        await balancer.ask()
    assert back.calls == {}


@in_virtual_time
async def test_past_the_budget_failures_are_told_with_a_time_to_come_back() -> None:
    balancer = Balancer()
    bad = [balancer.agent(f"bad-{number}", slots=64) for number in range(2)]
    generations = [await balancer.ask() for _ in range(40)]
    for agent in bad:
        agent.answer()
    for _ in range(3):
        for agent in bad:
            agent.answer()
            for call in tuple(agent.running):
                agent.fail(call, RpcCode.INTERNAL_ERROR)
    await settle()
    errors = [one.error for one in generations]
    assert all(error.retry_after_s for error in errors)
    assert sum(len(agent.calls) for agent in bad) <= 40 + 10 + 8


# --- what the model is called, and who is drained ---


@in_virtual_time
async def test_without_a_model_s_name_it_goes_on_with_the_one_that_it_began_with() -> None:
    balancer = Balancer()
    dying = balancer.agent("dying", model="m", slots=1)
    one = await balancer.ask("")
    dying.tokens(dying.answer()[0], [97], "a")
    alike = balancer.agent("alike", model="m", slots=1)
    balancer.agent("stranger", model="other")
    dying.die()
    assert alike.calls[alike.unanswered[0]].model == "m"
    await ended(alike, "b")
    assert one.sink.text == "ab"


@in_virtual_time
async def test_a_waiting_request_without_a_model_s_name_is_started_once() -> None:
    balancer = Balancer()
    agent = balancer.agent(slots=1)
    for _ in range(3):
        await balancer.ask("")
    for _ in range(3):
        await finish_all(agent)
    assert len(agent.calls) == 3
    assert balancer.dispatcher.waiting == 0


@in_virtual_time
async def test_a_drained_agent_that_connects_again_is_still_drained() -> None:
    balancer = Balancer()
    agent = balancer.agent("agent", slots=1)
    balancer.dispatcher.evacuation.drain("agent", deadline_s=None)
    agent.die()
    back = balancer.agent("agent", slots=1)
    await balancer.ask()
    assert back.unanswered == []
    balancer.dispatcher.evacuation.undrain("agent")
    assert len(back.unanswered) == 1
    await finish_all(back)


@in_virtual_time
async def test_a_new_call_that_an_agent_leaves_unanswered_goes_elsewhere() -> None:
    balancer = Balancer(settings=Settings(progress_timeout_s=30.0))
    still = balancer.agent("still", slots=8)
    one = await balancer.ask()
    other = balancer.agent("other", slots=1)
    balancer.dispatcher.evacuation.move_stalled()
    await asyncio.sleep(31.0)
    balancer.dispatcher.evacuation.move_stalled()
    assert still.cancelled == still.unanswered
    await ended(other, "x")
    assert one.outcome.agent == "other"


@in_virtual_time
async def test_alone_an_agent_keeps_its_calls_however_long_they_stand() -> None:
    balancer = Balancer(settings=Settings(progress_timeout_s=30.0))
    agent = balancer.agent()
    await begun(balancer, agent)
    for _ in range(5):
        balancer.dispatcher.evacuation.move_stalled()
        await asyncio.sleep(31.0)
    assert agent.cancelled == []


@in_virtual_time
async def test_a_request_that_would_not_begin_in_time_is_refused_at_once() -> None:
    balancer = Balancer()
    agent = balancer.agent(slots=1)
    await balancer.ask()
    agent.answer()
    await asyncio.sleep(10.0)
    await finish_all(agent)
    for _ in range(3):
        await balancer.ask()
    late = await balancer.ask(timeout_s=5.0)
    assert isinstance(late.error, DeadlineUnreachable)
    assert late.error.retry_after_s
    assert late.error.param == "timeout"
    patient = await balancer.ask(timeout_s=500.0)
    assert not patient.task.done()


@pytest.mark.parametrize(
    ("requests", "begins"),
    [
        (0, "no slot should be free before 12.3 s from now, past"),
        (1, "1 request comes before this one, so it would begin in 12.3 s, past"),
        (7, "7 requests come before this one, so it would begin in 12.3 s, past"),
    ],
)
def test_why_a_request_would_begin_too_late_is_said_in_plain_words(
    requests: int, begins: str
) -> None:
    text = late_text(requests, expected_s=12.34, left_s=2.99988)
    assert text.startswith(begins)
    assert "its `timeout` of 3 s;" in text


@in_virtual_time
async def test_an_agent_that_talks_nonsense_gets_nothing_for_a_while_even_if_it_comes_back() -> (
    None
):
    balancer = Balancer()
    agent = balancer.agent("agent", slots=4)
    for _ in range(10):
        agent.link.receive(b"nonsense")
    assert agent.closed_reason
    back = balancer.agent("agent", slots=4)
    await balancer.ask()
    assert back.unanswered == []
    await asyncio.sleep(6.0)
    balancer.roster.take_back_ejected()
    assert len(back.unanswered) == 1
    await finish_all(back)
