"""One generation and its neighbours, from arrival to end, with agents that speak bytes."""

from __future__ import annotations

import asyncio

import pytest

from balancer.dispatch.relay import Relay
from balancer.errors import (
    InvalidRequest,
    ModelNotFound,
    ModelUnavailable,
    NoAgents,
    QueueFull,
    QueueTimeout,
)
from balancer.settings import Settings
from protocol.generation import GenerationRequest, ReasoningDelta
from protocol.prefix_chain import HASH_BYTES, prefix_chain
from protocol.refusals import RefusalCode
from protocol.to_balancer import Tokens
from tests.support.generations import ANYONE, Balancer, RecordingSink, finish_all, now
from tests.support.virtual_time import in_virtual_time, settle

# --- the good way ---


@in_virtual_time
async def test_a_generation_goes_through_and_reports_how_it_went() -> None:
    balancer = Balancer()
    agent = balancer.agent()
    one = await balancer.ask(timeout_s=30.0)
    (call,) = agent.unanswered
    await asyncio.sleep(0.5)
    agent.answer()
    agent.tokens(call, [1], "Hello")
    await asyncio.sleep(1.5)
    agent.tokens(call, [2, 3], ", you")
    agent.finish(call)
    await settle()
    assert one.sink.text == "Hello, you"
    assert one.sink.agents == ["one"]
    outcome = one.outcome
    assert (outcome.agent, outcome.attempts, outcome.finish_reason) == ("one", 1, "stop")
    assert (outcome.queue_ms, outcome.ttft_ms, outcome.total_ms) == (0.0, 500.0, 2000.0)
    assert outcome.usage.completion_tokens == 3
    sent = agent.calls[call]
    assert (sent.model, sent.created, sent.deadline_ms) == ("demo", 1_700_000_000, 30_000)
    assert sent.trace_id == "req_1"


@in_virtual_time
async def test_every_call_of_a_request_carries_its_prefix_chain() -> None:
    balancer = Balancer()
    agent = balancer.agent()
    prompt = "a" * 2000
    await balancer.ask(prompt=prompt)
    agent.refuse(agent.unanswered[0], RefusalCode.NO_FREE_SLOT)
    agent.capacity_version += 1
    agent.heartbeat()
    await settle()
    first, second = agent.calls.values()
    expected = prefix_chain(GenerationRequest(prompt=prompt), cache_scope="")
    assert first.prefix_chain == second.prefix_chain == expected
    assert len(expected) == 3 * HASH_BYTES
    assert first.cache_scope == ""
    await finish_all(agent)


@in_virtual_time
async def test_tokens_are_published_once_at_the_end() -> None:
    balancer = Balancer()
    agent = balancer.agent()
    await balancer.ask()
    agent.tokens(agent.answer()[0], [1, 2, 3], "abc")
    assert balancer.sample("paddler_tokens_total", kind="completion") == 0
    await finish_all(agent)
    assert balancer.sample("paddler_tokens_total", kind="prompt") == 7
    assert balancer.sample("paddler_tokens_total", kind="completion") == 3
    assert balancer.sample("paddler_tokens_total", kind="cached") == 2
    assert balancer.sample("paddler_generations_in_flight") == 0


@in_virtual_time
async def test_a_generation_is_counted_by_how_it_ended_also_after_its_answer_began() -> None:
    balancer = Balancer(settings=Settings(queue_timeout_s=60.0))
    agent = balancer.agent(slots=2)
    broken = await balancer.ask(sink=RecordingSink(breaks_on="tokens"))
    agent.tokens(agent.answer()[0], [1], "a")
    await settle()
    await (await balancer.ask()).leave()
    hurried = await balancer.ask(timeout_s=5.0)
    in_vain = await balancer.ask()
    await asyncio.sleep(60.0)
    assert {broken.error.code, hurried.error.code, in_vain.error.code} == {
        "internal_error",
        "generation_timeout",
        "queue_timeout",
    }
    agent.answer()
    await finish_all(agent)
    await balancer.ask()
    agent.answer()
    await finish_all(agent)
    for outcome in (
        "internal_error",
        "cancelled",
        "generation_timeout",
        "queue_timeout",
        "stop",
    ):
        assert balancer.sample("paddler_generations_ended_total", outcome=outcome) == 1, outcome


@in_virtual_time
async def test_sixteen_requests_spread_evenly_over_four_agents_of_four_slots() -> None:
    balancer = Balancer()
    agents = [balancer.agent(f"agent-{index}") for index in range(4)]
    await asyncio.gather(*(balancer.ask() for _ in range(16)))
    assert [len(agent.unanswered) for agent in agents] == [4, 4, 4, 4]


@in_virtual_time
async def test_round_robin_is_used_where_it_is_set() -> None:
    balancer = Balancer(settings=Settings(policy="round_robin"))
    large, small = balancer.agent("large", slots=16), balancer.agent("small", slots=2)
    for _ in range(4):
        await balancer.ask()
    assert (len(large.calls), len(small.calls)) == (2, 2)


@in_virtual_time
async def test_two_models_asked_in_turn_each_use_all_of_their_agents() -> None:
    balancer = Balancer(settings=Settings(policy="round_robin"))
    agents = [balancer.agent(f"{model}-{n}", model=model) for model in "xy" for n in range(2)]
    for _ in range(4):
        for model in "xy":
            await balancer.ask(model)
    assert [len(agent.calls) for agent in agents] == [2, 2, 2, 2]


@in_virtual_time
async def test_without_a_model_the_only_one_answers_under_its_own_name() -> None:
    balancer = Balancer()
    agent = balancer.agent(model="demo")
    await balancer.ask("")
    assert [call.model for call in agent.calls.values()] == ["demo"]


@in_virtual_time
async def test_an_alias_reaches_the_agent_as_it_was_asked_for() -> None:
    balancer = Balancer()
    agent = balancer.agent(aliases=("gpt-x",))
    await balancer.ask("gpt-x")
    assert [call.model for call in agent.calls.values()] == ["gpt-x"]


@in_virtual_time
async def test_what_another_agent_would_need_to_go_on_is_kept_at_each_step() -> None:
    balancer = Balancer()
    agent = balancer.agent()
    one = await balancer.ask()
    (call,) = agent.answer()
    agent.tokens(call, [1, 2], "ab")
    agent.say(
        Tokens(calls=(call,), token_ids=((3,),), deltas=((ReasoningDelta("cde"),),)),
    )
    relay = one.flow
    assert isinstance(relay, Relay)
    resume = relay.so_far.resume()
    assert resume is not None
    assert (resume.token_ids, resume.emitted_chars) == ((1, 2, 3), 5)


# --- waiting ---


@in_virtual_time
async def test_eight_requests_on_four_slots_start_in_order_and_at_most_four_at_once() -> None:
    balancer = Balancer()
    agent = balancer.agent(slots=4)
    all_of_them = [await balancer.ask(prompt=f"{index}") for index in range(8)]
    assert (len(agent.unanswered), balancer.dispatcher.waiting) == (4, 4)
    agent.answer()
    for call in tuple(agent.running):
        agent.finish(call)
        assert len(agent.running) + len(agent.unanswered) == 4
    await finish_all(agent)
    assert [call.prompt for call in agent.calls.values()] == [f"{index}" for index in range(8)]
    assert all(one.outcome.attempts == 1 for one in all_of_them)


@in_virtual_time
async def test_one_freed_slot_starts_exactly_one_who_waits() -> None:
    balancer = Balancer()
    agent = balancer.agent(slots=2)
    for _ in range(5):
        await balancer.ask()
    agent.answer()
    agent.finish(agent.running[0])
    agent.heartbeat()
    assert (len(agent.unanswered), balancer.dispatcher.waiting) == (1, 2)
    assert balancer.sample("paddler_requests_waiting") == 2
    assert balancer.sample("paddler_requests_waiting_bytes") == 200


@in_virtual_time
async def test_an_agent_that_joins_late_serves_those_who_wait() -> None:
    balancer = Balancer()
    waiting = [await balancer.ask("whatever") for _ in range(3)]
    await asyncio.sleep(20.0)
    agent = balancer.agent(model="whatever", slots=2)
    assert len(agent.unanswered) == 2
    await finish_all(agent)
    assert [one.outcome.queue_ms for one in waiting] == [20_000.0] * 3
    assert balancer.sample("paddler_queue_wait_seconds_count") == 3


@in_virtual_time
async def test_a_cancelled_waiting_request_disappears_at_once() -> None:
    balancer = Balancer()
    agent = balancer.agent(slots=1)
    _, leaving, staying = [await balancer.ask(prompt=text) for text in ("a", "b", "c")]
    await leaving.leave()
    assert (balancer.dispatcher.waiting, balancer.dispatcher.in_flight) == (1, 2)
    await finish_all(agent)
    assert [call.prompt for call in agent.calls.values()] == ["a", "c"]
    assert staying.outcome.finish_reason == "stop"
    assert agent.cancelled == []


@in_virtual_time
async def test_a_request_cancelled_in_the_moment_of_its_start_starts_nothing() -> None:
    balancer = Balancer()
    agent = balancer.agent(slots=1)
    first, second = await balancer.ask(), await balancer.ask()
    agent.answer()
    second.task.cancel()
    agent.finish(agent.running[0])
    await settle()
    assert len(agent.calls) == 1
    assert first.outcome.finish_reason == "stop"


@in_virtual_time
async def test_nobody_comes_and_the_wait_ends_with_504_after_the_timeout_not_before() -> None:
    balancer = Balancer(settings=Settings(queue_timeout_s=60.0))
    started_s = now()
    one = await balancer.ask()
    with pytest.raises(QueueTimeout) as caught:
        await one.task
    assert now() - started_s == pytest.approx(60.0)
    assert caught.value.status == 504
    assert (caught.value.code, caught.value.retry_after_s) == ("queue_timeout", 8)
    assert balancer.dispatcher.waiting == 0


@in_virtual_time
async def test_with_waiting_switched_off_a_busy_balancer_answers_503_at_once() -> None:
    balancer = Balancer(settings=Settings(queue_timeout_s=0.0))
    nobody = await balancer.ask()
    assert isinstance(nobody.error, NoAgents)
    agent = balancer.agent(slots=1)
    await balancer.ask()
    assert isinstance((await balancer.ask()).error, QueueFull)
    agent.die()
    balancer.agent("other", model="other")
    gone = await balancer.ask()
    assert isinstance(gone.error, ModelUnavailable)
    assert all(one.error.retry_after_s for one in (nobody, gone))


@pytest.mark.parametrize(
    "settings", [Settings(max_waiting=2), Settings(max_waiting_bytes=250)], ids=["count", "bytes"]
)
@in_virtual_time
async def test_a_full_waiting_room_answers_503_with_an_estimate(settings: Settings) -> None:
    balancer = Balancer(settings=settings)
    balancer.agent(slots=1)
    for _ in range(3):
        await balancer.ask()
    refused = await balancer.ask()
    assert isinstance(refused.error, QueueFull)
    assert refused.error.retry_after_s == 15
    assert balancer.dispatcher.waiting == 2


@in_virtual_time
async def test_estimates_follow_how_long_requests_took() -> None:
    balancer = Balancer(settings=Settings(max_waiting=0))
    agent = balancer.agent(slots=1)
    await balancer.ask()
    agent.answer()
    await asyncio.sleep(42.0)
    agent.finish(agent.running[0])
    await settle()
    await balancer.ask()
    assert (await balancer.ask()).error.retry_after_s == 42


@in_virtual_time
async def test_refusals_do_not_make_waiting_look_short() -> None:
    balancer = Balancer(settings=Settings(max_waiting=0))
    agent = balancer.agent(slots=1)
    await balancer.ask()
    agent.answer()
    await asyncio.sleep(42.0)
    agent.finish(agent.running[0])
    for _ in range(20):
        await balancer.ask()
        agent.refuse(agent.unanswered[0], RefusalCode.CONTEXT_TOO_LONG)
        await settle()
    await balancer.ask()
    assert (await balancer.ask()).error.retry_after_s == 42


# --- names of models ---


@in_virtual_time
async def test_an_unknown_name_is_404_once_agents_came_and_waits_before() -> None:
    balancer = Balancer()
    early = await balancer.ask("nonsense")
    assert not early.task.done()
    balancer.agent()
    late = await balancer.ask("nonsense")
    assert isinstance(late.error, ModelNotFound)
    assert "demo" in late.error.message
    assert late.error.param == "model"


@in_virtual_time
async def test_a_model_whose_last_agent_left_lately_is_waited_for() -> None:
    balancer = Balancer(settings=Settings(model_memory_s=600.0))
    balancer.agent().die()
    assert not (await balancer.ask()).task.done()
    await asyncio.sleep(601.0)
    assert isinstance((await balancer.ask()).error, ModelNotFound)


@in_virtual_time
async def test_no_name_and_several_models_is_400_that_names_them() -> None:
    balancer = Balancer()
    balancer.agent("one", model="small")
    balancer.agent("two", model="large")
    refused = await balancer.ask("")
    assert isinstance(refused.error, InvalidRequest)
    assert "large, small" in refused.error.message
    assert refused.error.param == "model"


@in_virtual_time
async def test_a_request_without_a_name_is_for_the_model_that_is_served_when_it_comes() -> None:
    balancer = Balancer()
    small = balancer.agent("one", model="small", slots=1)
    await balancer.ask("")
    await balancer.ask("", request_id="req_2")
    await balancer.ask("small", request_id="req_3")
    rows = balancer.dispatcher.requests()
    assert [(row.model, row.position) for row in rows] == [
        ("small", None),
        ("small", 1),
        ("small", 2),
    ]
    large = balancer.agent("two", model="large")
    await finish_all(small)
    await settle()
    await finish_all(small)
    assert (len(small.calls), len(large.calls)) == (3, 0)


@in_virtual_time
async def test_who_waits_without_a_name_is_told_when_a_second_model_comes() -> None:
    balancer = Balancer()
    await balancer.ask("")
    waiting = await balancer.ask("")
    balancer.agent("one", model="small", slots=1)
    balancer.agent("two", model="large")
    await settle()
    assert isinstance(waiting.error, InvalidRequest)
    assert balancer.dispatcher.waiting == 0


@in_virtual_time
async def test_who_waits_without_a_name_is_served_by_the_first_model_that_comes() -> None:
    balancer = Balancer()
    waiting = await balancer.ask("")
    agent = balancer.agent(model="small")
    await finish_all(agent)
    assert waiting.outcome.agent == "one"


@in_virtual_time
async def test_many_models_are_not_all_listed_in_an_error() -> None:
    balancer = Balancer()
    for index in range(25):
        balancer.agent(f"agent-{index}", model=f"model-{index:02}")
    refused = await balancer.ask("nonsense")
    assert refused.error.message.endswith("model-19, …")


@in_virtual_time
async def test_a_scored_prompt_is_sent_without_its_prefix_as_nothing_of_it_is_cached() -> None:
    balancer = Balancer()
    prompt = "a long prompt that is worth keeping together. " * 100
    plain = GenerationRequest(model="demo", prompt=prompt)
    scored = GenerationRequest(model="demo", prompt=prompt, top_logprobs=1, prompt_logprobs=True)
    assert balancer.dispatcher.chain(plain, ANYONE).packed
    assert balancer.dispatcher.chain(scored, ANYONE).packed == b""
