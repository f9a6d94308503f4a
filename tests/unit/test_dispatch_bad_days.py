"""Refusals, deaths, leaving and slow clients, and the end: a generation on its bad days."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest
from structlog.testing import capture_logs

from balancer.errors import (
    ClientDropped,
    DrainingError,
    GenerationTimeout,
    InternalError,
    InvalidRequest,
    LimitExceeded,
    ModelUnavailable,
    QueueTimeout,
    RequestTooLarge,
    UpstreamFailed,
)
from balancer.settings import Settings
from protocol.errors import FrameTooLarge
from protocol.generation import Usage
from protocol.jsonrpc import RpcCode
from protocol.refusals import RefusalCode
from protocol.to_balancer import Finished
from tests.support.generations import Balancer, Generation, RecordingSink, finish_all
from tests.support.virtual_time import in_virtual_time, settle

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
    with capture_logs() as logs:
        agent.say(Finished(call=call, finish_reason="stop", usage=usage))
        await settle()
    assert [entry["event"] for entry in logs] == ["message dropped"]
    agent.running.remove(call)
    for _ in range(2):  # the agent does not hold it any more, and that is no accident
        agent.heartbeat()
    await settle()
    assert isinstance(one.error, UpstreamFailed)


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
    agent.link._calls._send = refuse
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
