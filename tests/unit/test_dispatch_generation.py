"""One generation and its neighbours, from arrival to end, with agents that speak bytes."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest
from structlog.testing import capture_logs

from balancer.dispatch.relay import Relay
from balancer.errors import (
    AgentLost,
    ClientDropped,
    DrainingError,
    GenerationTimeout,
    InternalError,
    InvalidRequest,
    LimitExceeded,
    ModelNotFound,
    ModelUnavailable,
    NoAgents,
    QueueFull,
    QueueTimeout,
    RequestTooLarge,
    UpstreamFailed,
)
from balancer.settings import Settings
from protocol.errors import FrameTooLarge
from protocol.generation import ReasoningDelta, Usage
from protocol.jsonrpc import RpcCode
from protocol.refusals import RefusalCode
from protocol.to_balancer import Finished, Tokens
from tests.support.generations import Balancer, Generation, RecordingSink
from tests.support.memory_agent import MemoryAgent
from tests.support.virtual_time import in_virtual_time, settle


def now() -> float:
    return asyncio.get_running_loop().time()


async def finish_all(agent: MemoryAgent) -> None:
    """Work until nothing is left to do."""
    while agent.unanswered or agent.running:
        agent.answer()
        for call in tuple(agent.running):
            agent.finish(call)
    await settle()


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
    assert (relay.token_ids, relay.emitted_chars) == ([1, 2, 3], 5)


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
async def test_who_waits_without_a_name_is_told_when_a_second_model_comes() -> None:
    balancer = Balancer()
    balancer.agent("one", model="small", slots=1)
    await balancer.ask("")
    waiting = await balancer.ask("")
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


# --- refusals ---


@in_virtual_time
async def test_a_refused_request_keeps_its_place_and_passes_the_agent_over_until_it_can_more() -> (
    None
):
    balancer = Balancer()
    agent = balancer.agent(slots=2)
    first = await balancer.ask(prompt="first")
    agent.refuse(agent.unanswered[0], RefusalCode.NO_FREE_SLOT)
    await balancer.ask(prompt="second")
    agent.heartbeat()
    assert (agent.unanswered, balancer.dispatcher.waiting) == ([], 2)
    agent.capacity_version += 1
    agent.heartbeat()
    prompts = [agent.calls[call].prompt for call in agent.unanswered]
    assert prompts == ["first", "second"]
    await finish_all(agent)
    assert first.outcome.attempts == 2


@in_virtual_time
async def test_an_agent_that_refuses_for_ever_and_claims_room_costs_little_and_ends_in_504() -> (
    None
):
    balancer = Balancer(settings=Settings(queue_timeout_s=60.0))
    agent = balancer.agent(slots=4)
    one = await balancer.ask()
    for _ in range(70):
        for _ in range(100):
            if agent.unanswered:
                agent.refuse(agent.unanswered[0], RefusalCode.NO_FREE_SLOT)
                agent.capacity_version += 1
                agent.heartbeat()
        await asyncio.sleep(1.0)
        agent.heartbeat()
    assert isinstance(one.error, QueueTimeout)
    assert len(agent.calls) < 25
    agent.capacity_version += 1
    agent.heartbeat()
    well = await balancer.ask()
    await finish_all(agent)
    assert well.outcome.agent == "one"


@in_virtual_time
async def test_a_refusal_after_the_queue_timeout_is_504_even_if_room_is_told_of_at_once() -> None:
    balancer = Balancer(settings=Settings(queue_timeout_s=60.0))
    agent = balancer.agent(slots=4)
    one = await balancer.ask()
    await asyncio.sleep(61.0)
    agent.refuse(agent.unanswered[0], RefusalCode.NO_FREE_SLOT)
    agent.capacity_version += 1
    agent.heartbeat()
    await settle()
    assert isinstance(one.error, QueueTimeout)
    assert len(agent.calls) == 1


@in_virtual_time
async def test_a_refused_request_tries_another_agent_at_once() -> None:
    balancer = Balancer()
    full, free = balancer.agent("full", slots=8), balancer.agent("free", slots=2)
    for _ in range(2):
        await balancer.ask()
    (call, *_) = full.unanswered or free.unanswered
    refuser = full if full.unanswered else free
    other = free if refuser is full else full
    before = len(other.unanswered)
    refuser.refuse(call, RefusalCode.DRAINING)
    assert len(other.unanswered) == before + 1


@in_virtual_time
async def test_refused_without_waiting_is_503() -> None:
    balancer = Balancer(settings=Settings(queue_timeout_s=0.0))
    agent = balancer.agent(slots=2)
    one = await balancer.ask()
    agent.refuse(agent.unanswered[0], RefusalCode.MODEL_NOT_LOADED)
    await settle()
    assert one.error.status == 503


@in_virtual_time
async def test_a_request_refused_from_a_full_room_is_let_back_in() -> None:
    balancer = Balancer(settings=Settings(max_waiting=1))
    agent = balancer.agent(slots=1)
    first = await balancer.ask(prompt="first")
    await balancer.ask(prompt="second")
    agent.refuse(agent.unanswered[0], RefusalCode.NO_FREE_SLOT)
    await settle()
    assert not first.task.done()
    assert balancer.dispatcher.waiting == 2


@pytest.mark.parametrize(
    ("code", "error", "client_code"),
    [
        (RefusalCode.CONTEXT_TOO_LONG, InvalidRequest, "context_length_exceeded"),
        (RefusalCode.UNSUPPORTED, InvalidRequest, "unsupported_parameter"),
        (RefusalCode.INVALID_TEMPLATE, InvalidRequest, "invalid_value"),
        (RefusalCode.INVALID_GRAMMAR, InvalidRequest, "invalid_value"),
        (RefusalCode.INVALID_MEDIA, InvalidRequest, "invalid_value"),
        (RefusalCode.CAP_EXCEEDED, LimitExceeded, "token_limit_exceeded"),
        (RefusalCode.ENGINE_FAILED, UpstreamFailed, "upstream_failed"),
        (RefusalCode.CANCELLED, UpstreamFailed, "upstream_failed"),
        (RpcCode.INTERNAL_ERROR, UpstreamFailed, "upstream_failed"),
        (-1, UpstreamFailed, "upstream_failed"),
    ],
)
@in_virtual_time
async def test_a_refusal_becomes_the_clients_error(
    code: int, error: type[Exception], client_code: str
) -> None:
    balancer = Balancer()
    agent = balancer.agent()
    one = await balancer.ask()
    agent.refuse(agent.unanswered[0], code, "too long by 7 tokens", param="prompt", tokens=2055)
    await settle()
    assert isinstance(one.error, error)
    assert one.error.code == client_code
    assert "too long by 7 tokens" in one.error.message
    assert one.error.details["tokens"] == 2055
    if client_code == "context_length_exceeded":
        assert one.error.param == "prompt"


@in_virtual_time
async def test_a_client_that_left_hears_nothing_of_failures() -> None:
    balancer = Balancer()
    agent = balancer.agent()
    one, other = await balancer.ask(), await balancer.ask()
    first, second = agent.answer()
    for leaving in (one, other):
        await leaving.leave()
    agent.fail(first)
    agent.finish(second)
    agent.confirm_cancels()
    assert (one.task.cancelled(), other.task.cancelled()) == (True, True)
    assert balancer.sample("paddler_cancel_to_free_slot_seconds_count") == 2


@in_virtual_time
async def test_a_model_that_is_not_loaded_after_the_commit_is_503() -> None:
    balancer = Balancer()
    agent = balancer.agent()
    one = await balancer.ask()
    agent.fail(agent.answer()[0], RefusalCode.MODEL_NOT_LOADED)
    await settle()
    assert isinstance(one.error, ModelUnavailable)
    assert one.error.retry_after_s


# --- bad days ---


@pytest.mark.parametrize("tokens", [0, 2], ids=["before the first token", "mid-stream"])
@in_virtual_time
async def test_a_lost_agent_ends_its_requests_and_those_who_wait_go_elsewhere(tokens: int) -> None:
    balancer = Balancer()
    dying = balancer.agent("dying", slots=1)
    one = await balancer.ask()
    waiting = await balancer.ask()
    (call,) = dying.answer()
    for _ in range(tokens):
        dying.tokens(call, [1], "x")
    dying.die()
    await settle()
    assert isinstance(one.error, AgentLost)
    assert (one.error.status, one.error.code) == (502, "agent_lost")
    assert one.error.details == {"agent": "dying", "completion_tokens": tokens}
    other = balancer.agent("other")
    await finish_all(other)
    assert waiting.outcome.agent == "other"


@pytest.mark.parametrize("code", [RefusalCode.ENGINE_FAILED, RpcCode.INTERNAL_ERROR])
@in_virtual_time
async def test_a_failure_after_the_commit_is_502_that_names_the_reason(code: int) -> None:
    balancer = Balancer()
    agent = balancer.agent()
    one = await balancer.ask()
    agent.fail(agent.answer()[0], code, "the engine was killed by SIGKILL")
    await settle()
    assert isinstance(one.error, UpstreamFailed)
    assert "SIGKILL" in one.error.message
    assert balancer.sample("paddler_agent_slots_used_count", agent="one") == 0


@in_virtual_time
async def test_an_agent_that_cancels_on_its_own_is_an_error_never_a_short_success() -> None:
    balancer = Balancer()
    agent = balancer.agent()
    one = await balancer.ask()
    agent.finish(agent.answer()[0], "cancelled")
    await settle()
    assert isinstance(one.error, UpstreamFailed)


@in_virtual_time
async def test_an_answer_with_lost_tokens_is_an_error_never_a_short_success() -> None:
    balancer = Balancer()
    agent = balancer.agent()
    one = await balancer.ask()
    (call,) = agent.answer()
    agent.tokens(call, [1], "x")
    agent.link.receive(b'{"jsonrpc":"2.0","method":"tokens","params":{"calls":[%d]}}' % call)
    agent.tokens_sent[call] += 2
    agent.finish(call)
    await settle()
    assert isinstance(one.error, UpstreamFailed)
    assert one.error.details["reason"] == "tokens_lost"


@in_virtual_time
async def test_nonsense_in_the_usage_does_not_leave_the_client_waiting_for_ever() -> None:
    balancer = Balancer()
    agent = balancer.agent()
    one = await balancer.ask()
    (call,) = agent.answer()
    usage = Usage(prompt_tokens=-1, completion_tokens=-1)
    with capture_logs():
        agent.say(Finished(call=call, finish_reason="stop", usage=usage))
    await settle()
    assert one.outcome.usage == usage


@pytest.mark.parametrize("moment", ["committed", "tokens"])
@in_virtual_time
async def test_a_sink_that_raises_ends_its_own_request_only(
    moment: Literal["committed", "tokens"],
) -> None:
    balancer = Balancer()
    agent = balancer.agent()
    broken = await balancer.ask(sink=RecordingSink(breaks_on=moment))
    well = await balancer.ask()
    with capture_logs() as logs:
        first, second = agent.answer()
        agent.step({first: "a", second: "b"})
        agent.step({first: "a", second: "b"})
    await settle()
    assert isinstance(broken.error, InternalError)
    assert [entry["event"] for entry in logs] == ["sink failed"]
    assert (agent.cancelled, well.sink.text) == ([first], "bb")


@in_virtual_time
async def test_a_request_too_big_for_the_link_is_413_and_claims_nothing() -> None:
    def refuse(_message: bytes) -> None:
        raise FrameTooLarge("33554433 bytes are more than 33554432")

    balancer = Balancer()
    agent = balancer.agent()
    agent.link._send = refuse
    one = await balancer.ask()
    assert isinstance(one.error, RequestTooLarge)
    assert balancer.roster.snapshot()[0].slots.used == 0


@in_virtual_time
async def test_text_that_is_no_unicode_is_400_and_claims_nothing() -> None:
    balancer = Balancer()
    balancer.agent()
    one = await balancer.ask(prompt="\ud800")
    assert isinstance(one.error, InvalidRequest)
    assert balancer.roster.snapshot()[0].slots.used == 0


# --- leaving ---


@pytest.mark.parametrize("moment", ["before the commit", "in prefill", "mid-stream"])
@in_virtual_time
async def test_a_client_that_leaves_frees_its_slot_when_the_agent_confirms(moment: str) -> None:
    balancer = Balancer()
    agent = balancer.agent(slots=1)
    one = await balancer.ask()
    (call,) = agent.unanswered
    if moment != "before the commit":
        agent.answer()
    if moment == "mid-stream":
        agent.tokens(call, [1], "x")
    waiting = await balancer.ask()
    await one.leave()
    assert one.task.cancelled()
    assert agent.cancelled == [call]
    assert balancer.roster.snapshot()[0].slots.free == 0
    await asyncio.sleep(0.25)
    agent.confirm_cancels()
    assert len(agent.unanswered) == 1
    assert balancer.sample("paddler_cancel_to_free_slot_seconds_count") == 1
    assert balancer.sample("paddler_cancel_to_free_slot_seconds_sum") == 0.25
    await finish_all(agent)
    assert waiting.outcome.finish_reason == "stop"


@in_virtual_time
async def test_tokens_for_a_client_that_left_go_nowhere() -> None:
    balancer = Balancer()
    agent = balancer.agent()
    one = await balancer.ask()
    (call,) = agent.answer()
    await one.leave()
    agent.tokens(call, [1], "late")
    assert one.sink.text == ""
    assert balancer.sample("paddler_link_garbage_total", kind="unknown_call") == 0


@in_virtual_time
async def test_a_client_that_leaves_before_a_refusal_is_not_queued_again() -> None:
    balancer = Balancer()
    agent = balancer.agent()
    one = await balancer.ask()
    (call,) = agent.unanswered
    await one.leave()
    agent.refuse(call, RefusalCode.NO_FREE_SLOT)
    agent.confirm_cancels()
    assert (balancer.dispatcher.waiting, len(agent.calls)) == (0, 1)


@in_virtual_time
async def test_an_agent_that_dies_with_cancelled_calls_costs_nothing() -> None:
    balancer = Balancer()
    agent = balancer.agent()
    one = await balancer.ask()
    agent.answer()
    await one.leave()
    agent.die()
    assert balancer.dispatcher.in_flight == 0


@in_virtual_time
async def test_a_generation_that_takes_longer_than_its_timeout_is_504_and_cancelled() -> None:
    balancer = Balancer()
    agent = balancer.agent()
    one = await balancer.ask(timeout_s=3.0)
    (call,) = agent.answer()
    with pytest.raises(GenerationTimeout):
        await one.task
    assert agent.cancelled == [call]


# --- slow clients ---


@in_virtual_time
async def test_a_slow_client_pauses_its_own_generation_and_goes_on_later() -> None:
    balancer = Balancer()
    agent = balancer.agent()
    slow = await balancer.ask()
    (call,) = agent.answer()
    slow.flow.pause()
    slow.flow.pause()
    assert agent.paused == [call]
    slow.flow.resume()
    slow.flow.resume()
    assert agent.paused == []
    assert balancer.sample("paddler_stream_pauses_total") == 1


@in_virtual_time
async def test_a_client_that_never_reads_is_dropped_and_its_call_cancelled() -> None:
    balancer = Balancer()
    agent = balancer.agent()
    slow = await balancer.ask()
    (call,) = agent.answer()
    slow.flow.pause()
    slow.flow.drop("unsent for 30 s")
    slow.flow.drop("again")
    await settle()
    assert isinstance(slow.error, ClientDropped)
    assert agent.cancelled == [call]
    assert balancer.sample("paddler_slow_clients_dropped_total") == 1


@in_virtual_time
async def test_flow_calls_after_the_end_do_nothing() -> None:
    balancer = Balancer()
    agent = balancer.agent()
    one = await balancer.ask()
    await finish_all(agent)
    one.flow.pause()
    one.flow.resume()
    one.flow.drop("late")
    assert one.outcome.finish_reason == "stop"
    assert (agent.paused, agent.cancelled) == ([], [])
    assert (one.flow.attempts, one.flow.queue_ms) == (1, 0.0)


# --- stopping ---


@in_virtual_time
async def test_draining_takes_nothing_new_and_lets_the_rest_end() -> None:
    balancer = Balancer()
    agent = balancer.agent(slots=1)
    running, waiting = await balancer.ask(), await balancer.ask()
    balancer.dispatcher.begin_draining()
    refused = await balancer.ask()
    assert isinstance(refused.error, DrainingError)
    assert refused.error.retry_after_s
    assert not await balancer.dispatcher.drained(10.0)
    await finish_all(agent)
    assert await balancer.dispatcher.drained(10.0)
    assert {running.outcome.finish_reason, waiting.outcome.finish_reason} == {"stop"}


@in_virtual_time
async def test_past_the_deadline_everything_ends_with_503() -> None:
    balancer = Balancer()
    agent = balancer.agent(slots=1)
    ended: list[Generation] = [await balancer.ask(), await balancer.ask()]
    agent.answer()
    balancer.dispatcher.begin_draining()
    balancer.dispatcher.end_all()
    await settle()
    assert [type(one.error) for one in ended] == [DrainingError, DrainingError]
    assert (len(agent.cancelled), balancer.dispatcher.in_flight) == (1, 0)
    assert balancer.dispatcher.is_draining
