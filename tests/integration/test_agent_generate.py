"""Calls from the link to the engine and back: real agent, fake balancer, fake engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec import structs

from protocol.chat import FunctionDefinition, Message, Tool
from protocol.codec import decode_result
from protocol.generation import (
    GenerationRequest,
    ReasoningDelta,
    Resume,
    ToolCallDelta,
    emitted_chars,
)
from protocol.jsonrpc import ErrorObject, ErrorResponse, Response, RpcCode
from protocol.refusals import RefusalCode
from protocol.to_agent import Cancel, Committed, Continue, Pause
from protocol.to_balancer import Failed, Heartbeat, Tokens
from tests.support.fake_balancer import FakeBalancer, fake_balancer
from tests.support.fake_engine import FACTS, FakeEngine, words
from tests.support.running_agent import ENDLESS_FOR_HI, running_agent

ASK = GenerationRequest(prompt="Hello there")
CHATML = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>"
    "{% if enable_thinking %}<think>\n{% endif %}{# <tool_call> #}"
)
CHAT_FACTS = structs.replace(FACTS, chat_template=CHATML)
TOOL = Tool(function=FunctionDefinition(name="port"))


@pytest.fixture
async def balancer() -> AsyncIterator[FakeBalancer]:
    async with fake_balancer() as balancer:
        yield balancer


def chat(text: str, **more: Any) -> GenerationRequest:
    return GenerationRequest(messages=(Message(role="user", content=text),), **more)


async def refusal(balancer: FakeBalancer, request: GenerationRequest, **more: Any) -> ErrorObject:
    answer = await balancer.answered(await balancer.call(request, **more))
    assert isinstance(answer, ErrorResponse)
    return answer.error


async def test_a_prompt_is_committed_streamed_and_finished(balancer: FakeBalancer) -> None:
    async with running_agent(balancer.address, FakeEngine(("Hel", "lo", "."))):
        await balancer.has_slots(4)
        call = await balancer.call(GenerationRequest(prompt="one two three", max_tokens=50))
        answer = await balancer.answered(call)
        finished = await balancer.finished(call)
    assert isinstance(answer, Response)
    assert decode_result(answer.result, Committed) == Committed(prompt_tokens=3, max_tokens=50)
    assert balancer.text(call) == "Hello."
    assert balancer.token_ids(call) == [1, 2, 3, 0]
    assert finished.finish_reason == "stop"
    assert (finished.usage.prompt_tokens, finished.usage.completion_tokens) == (3, 4)


async def test_the_cap_on_tokens_ends_a_call_with_length(balancer: FakeBalancer) -> None:
    async with running_agent(balancer.address, FakeEngine(words(10))):
        await balancer.has_slots(4)
        call = await balancer.call(GenerationRequest(prompt="x", max_tokens=3))
        finished = await balancer.finished(call)
    assert (finished.finish_reason, balancer.text(call)) == ("length", "w1 w2 w3 ")


async def test_messages_are_rendered_by_the_model_s_template(balancer: FakeBalancer) -> None:
    engine = FakeEngine(facts=CHAT_FACTS)
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        finished = await balancer.finished(await balancer.call(chat("Hi")))
    assert [submit.prompt for submit in engine.submits] == ["<|user|>Hi<|assistant|>"]
    assert finished.timings.template_ms > 0


async def test_a_template_of_the_settings_replaces_the_model_s(balancer: FakeBalancer) -> None:
    engine = FakeEngine()
    template = "{{ strftime_now('%Y') }}:{{ messages[0].content }}"
    async with running_agent(balancer.address, engine, chat_template=template):
        await balancer.has_slots(4)
        await balancer.finished(await balancer.call(chat("Hi"), created=0))
    assert engine.submits[0].prompt == "1970:Hi"


async def test_the_sampling_parameters_reach_the_engine(balancer: FakeBalancer) -> None:
    engine = FakeEngine()
    request = GenerationRequest(
        prompt=(1, 2, 3),
        seed=42,
        temperature=0.5,
        top_k=3,
        logit_bias=((5, -1.0),),
        stop=("\n",),
        min_tokens=2,
        top_logprobs=1,
        dry_multiplier=0.8,
        dry_sequence_breakers=("#",),
        xtc_probability=0.3,
        mirostat=2,
        mirostat_tau=3.5,
        adapters=(("poet", 0.5),),
        priority=-3,
        context_shift=True,
    )
    resume = Resume(token_ids=(1,), emitted_chars=3, sampler_state=(6.25,))
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        call = await balancer.call(request, resume=resume)
        await balancer.finished(call)
    [submit] = engine.submits
    sampling = submit.sampling
    assert (sampling.dry_multiplier, sampling.dry_sequence_breakers) == (0.8, ("#",))
    assert (sampling.xtc_probability, sampling.mirostat, sampling.mirostat_tau) == (0.3, 2, 3.5)
    assert (submit.resume_ids, submit.resume_sampler_state) == ((1,), (6.25,))
    assert (sampling.seed, sampling.temperature, sampling.top_k) == (42, 0.5, 3)
    assert sampling.logit_bias == ((5, -1.0),)
    assert (submit.prompt, submit.stop, submit.min_tokens) == ((1, 2, 3), ("\n",), 2)
    assert (submit.adapters, submit.priority) == ((("poet", 0.5),), -3)
    assert submit.context_shift
    assert all(tokens.logprobs for tokens in balancer.notifications(Tokens))


async def test_a_thought_and_a_tool_call_come_out_as_typed_deltas(balancer: FakeBalancer) -> None:
    pieces = ("Look", " it up.", "</think>", "\n\n", "<tool_call>", '{"name": "port", "argu')
    engine = FakeEngine((*pieces, 'ments": {"of": "api"}}', "</tool_call>"), facts=CHAT_FACTS)
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        call = await balancer.call(chat("Which?", tools=(TOOL,), enable_thinking=True, seed=3))
        finished = await balancer.finished(call)
    parts = [part for delta in balancer.deltas(call) if delta for part in delta]
    assert ReasoningDelta("Look") in parts
    calls = [part for part in parts if isinstance(part, ToolCallDelta)]
    assert (calls[0].name, calls[0].arguments, calls[0].id[:5]) == ("port", "", "call_")
    assert "".join(part.arguments for part in calls) == '{"of": "api"}'
    assert balancer.text(call) == ""
    assert finished.finish_reason == "tool_calls"
    assert finished.usage.reasoning_tokens == 3


async def test_the_engine_shows_the_control_tokens_that_the_format_has(
    balancer: FakeBalancer,
) -> None:
    engine = FakeEngine(("[TOOL_CALLS]", "port[AR", 'GS]{"of": 1}'), facts=CHAT_FACTS)
    async with running_agent(balancer.address, engine, tool_format="mistral-named"):
        await balancer.has_slots(4)
        for request in (chat("Which?", tools=(TOOL,)), chat("Which?"), ASK):
            call = await balancer.call(request)
            finished = await balancer.finished(call)
            if request.tools:
                assert finished.finish_reason == "tool_calls"
                assert balancer.text(call) == ""
    with_tools, without, plain = engine.submits
    assert {"[TOOL_CALLS]", "[ARGS]", "<think>"} <= set(with_tools.shown_specials)
    assert set(without.shown_specials) == {"<think>", "</think>"}
    assert plain.shown_specials == ()


async def test_text_held_back_comes_out_before_the_end(balancer: FakeBalancer) -> None:
    engine = FakeEngine(("See ", "<tool_"), facts=CHAT_FACTS)
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        call = await balancer.call(chat("Which?", tools=(TOOL,)))
        finished = await balancer.finished(call)
    assert balancer.text(call) == "See <tool_"
    assert finished.finish_reason == "stop"


async def test_calls_of_one_step_share_one_notification(balancer: FakeBalancer) -> None:
    engine = FakeEngine(pace="held")
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        calls = [await balancer.call(ASK) for _ in range(4)]
        for call in calls:
            await balancer.answered(call)
        engine.allow(1)
        await balancer.until(lambda: balancer.notifications(Tokens), "tokens")
        [tokens] = balancer.notifications(Tokens)
        engine.pace = "tick"
        for call in calls:
            await balancer.finished(call)
    assert sorted(map(str, tokens.calls)) == sorted(map(str, calls))
    assert tokens.deltas == ("Hel",) * 4
    assert [balancer.text(call) for call in calls] == ["Hello."] * 4


async def test_what_the_engine_refuses_is_refused(balancer: FakeBalancer) -> None:
    engine = FakeEngine()
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        engine.refuse_next(RefusalCode.CONTEXT_TOO_LONG, "too long")
        error = await refusal(balancer, ASK)
    assert (error.code, error.message) == (RefusalCode.CONTEXT_TOO_LONG, "too long")


async def test_a_fifth_call_on_four_slots_is_refused_and_capacity_is_told_when_it_grows(
    balancer: FakeBalancer,
) -> None:
    engine = FakeEngine(pace="held")
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        calls = [await balancer.call(ASK) for _ in range(4)]
        for call in calls:
            await balancer.answered(call)
        assert (await refusal(balancer, ASK)).code == RefusalCode.NO_FREE_SLOT
        version = _capacity_version(balancer)
        engine.pace = "tick"
        await balancer.until(lambda: _capacity_version(balancer) > version, "more capacity")
        for call in calls:
            await balancer.finished(call)
    assert engine.most_running == 4


async def test_a_call_refused_for_capacity_does_not_say_that_capacity_grew(
    balancer: FakeBalancer,
) -> None:
    engine = FakeEngine(pace="held")
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        version = _capacity_version(balancer)
        engine.refuse_next(RefusalCode.NO_FREE_SLOT, "all slots taken")
        beats = len(balancer.notifications(Heartbeat))
        assert (await refusal(balancer, ASK)).code == RefusalCode.NO_FREE_SLOT
        await balancer.until(lambda: len(balancer.notifications(Heartbeat)) > beats, "a status")
        assert _capacity_version(balancer) == version


def _capacity_version(balancer: FakeBalancer) -> int:
    return max(beat.status.capacity_version for beat in balancer.notifications(Heartbeat))


async def test_a_model_that_is_not_here_is_refused_and_every_name_of_it_is_known(
    balancer: FakeBalancer,
) -> None:
    async with running_agent(balancer.address, FakeEngine(), aliases=("a", "b")):
        await balancer.has_slots(4)
        error = await refusal(balancer, structs.replace(ASK, model="other"))
        assert error.code == RefusalCode.MODEL_NOT_LOADED
        for name in ("a", "b", ""):
            await balancer.finished(await balancer.call(structs.replace(ASK, model=name)))


async def test_a_call_without_a_prompt_or_with_two_is_refused(balancer: FakeBalancer) -> None:
    async with running_agent(balancer.address, FakeEngine()):
        await balancer.has_slots(4)
        assert (await refusal(balancer, GenerationRequest())).code == RpcCode.INVALID_PARAMS
        both = chat("Hi", prompt="Hi")
        assert (await refusal(balancer, both)).code == RpcCode.INVALID_PARAMS


async def test_a_chat_with_a_model_that_has_no_template_is_refused_with_the_remedy(
    balancer: FakeBalancer,
) -> None:
    engine = FakeEngine(facts=structs.replace(FACTS, chat_template=""))
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        error = await refusal(balancer, chat("Hi"))
    assert error.code == RefusalCode.UNSUPPORTED
    assert "--chat-template" in error.message


async def test_a_template_that_raises_is_refused_in_its_own_words(balancer: FakeBalancer) -> None:
    template = "{% if messages[0].content == 'bad' %}{{ raise_exception('No!') }}{% endif %}ok"
    async with running_agent(balancer.address, FakeEngine(), chat_template=template):
        await balancer.has_slots(4)
        error = await refusal(balancer, chat("bad"))
        await balancer.finished(await balancer.call(chat("good")))
    assert (error.code, error.message) == (RefusalCode.INVALID_TEMPLATE, "No!")


async def test_a_template_that_does_not_compile_is_an_issue(balancer: FakeBalancer) -> None:
    async with running_agent(balancer.address, FakeEngine(), chat_template="{% if %}"):
        await balancer.until(
            lambda: (
                (beat := balancer.last_heartbeat()) is not None
                and [issue.code for issue in beat.status.issues] == ["chat_template"]
            ),
            "the issue",
        )
        await balancer.has_slots(4)
        assert (await refusal(balancer, chat("Hi"))).code == RefusalCode.INVALID_TEMPLATE
        await balancer.finished(await balancer.call(ASK))


async def test_a_cancelled_call_ends_with_what_it_used(balancer: FakeBalancer) -> None:
    engine = FakeEngine(words(100_000), pace="held")
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        call = await balancer.call(ASK)
        engine.allow(3)
        await balancer.until(lambda: len(balancer.token_ids(call)) == 3, "three tokens")
        await balancer.notify(Cancel(call=call))
        finished = await balancer.finished(call)
        assert engine.running == 0
    assert (finished.finish_reason, finished.usage.completion_tokens) == ("cancelled", 3)


async def test_a_call_cancelled_while_it_is_rendered_is_refused_as_cancelled(
    balancer: FakeBalancer,
) -> None:
    engine = FakeEngine()
    async with running_agent(balancer.address, engine, chat_template=ENDLESS_FOR_HI):
        await balancer.has_slots(4)
        call = await balancer.call(chat("Hi"))
        await balancer.notify(Cancel(call=call))
        answer = await balancer.answered(call)
        assert isinstance(answer, ErrorResponse)
        assert answer.error.code == RefusalCode.CANCELLED
    assert engine.submits == []


async def test_a_paused_call_gets_no_tokens_until_it_is_continued(balancer: FakeBalancer) -> None:
    engine = FakeEngine(words(6), pace="held")
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        paused, other = await balancer.call(ASK), await balancer.call(ASK)
        await balancer.answered(other)
        await balancer.notify(Pause(call=paused))
        await balancer.until(
            lambda: (b := balancer.last_heartbeat()) is not None and b.status.paused == (paused,),
            "the pause in a status",
        )
        engine.pace = "tick"
        await balancer.finished(other)
        assert balancer.token_ids(paused) == []
        await balancer.notify(Continue(call=paused))
        await balancer.finished(paused)
    assert balancer.text(paused) == "".join(words(6))


async def test_a_duplicate_call_id_is_refused_without_disturbing_the_first(
    balancer: FakeBalancer,
) -> None:
    engine = FakeEngine(pace="held")
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        await balancer.request("same", ASK)
        await balancer.answered("same")
        await balancer.request("same", ASK)
        await balancer.until(
            lambda: any(isinstance(message, ErrorResponse) for message in balancer.heard),
            "the refusal",
        )
        engine.pace = "tick"
        await balancer.finished("same")
    assert len(engine.submits) == 1


async def test_a_dead_engine_fails_its_calls_with_signal_phase_and_step(
    balancer: FakeBalancer,
) -> None:
    engine = FakeEngine(words(100_000), pace="held")
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        running = await balancer.call(ASK)
        engine.allow(2)
        await balancer.until(lambda: len(balancer.token_ids(running)) == 2, "two tokens")
        engine.ignore_submits = True
        engine.events.submitted.clear()
        submitted = await balancer.call(ASK)
        async with asyncio.timeout(20):
            await engine.events.submitted.wait()
        engine.die("SIGABRT")
        failed = await balancer.ended(running)
        refused = await balancer.answered(submitted)
        engine.ignore_submits = False
        engine.pace = "tick"
        await balancer.has_slots(4)
    assert isinstance(failed, Failed)
    assert failed.error.code == RefusalCode.ENGINE_FAILED
    assert failed.error.data == {"signal": "SIGABRT", "phase": "serving", "step": 2}
    assert isinstance(refused, ErrorResponse)
    assert refused.error.code == RefusalCode.ENGINE_FAILED


async def test_a_resumed_call_emits_only_what_follows(balancer: FakeBalancer) -> None:
    engine = FakeEngine(("a", "b", "c", "d"))
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        resume = Resume(token_ids=(1, 2), emitted_chars=2)
        call = await balancer.call(ASK, resume=resume)
        finished = await balancer.finished(call)
    assert balancer.text(call) == "cd"
    assert finished.usage.completion_tokens == 5


async def test_a_tool_call_goes_on_elsewhere_as_if_nothing_had_happened(
    balancer: FakeBalancer,
) -> None:
    pieces = (
        *("<think>", "hm", "</think>", "<tool_call>", '{"name": "port", "arguments": {', '"of": '),
        *('"api"', "}}", "</tool_call>"),
    )
    engine = FakeEngine(pieces, facts=CHAT_FACTS)
    request = chat("Which?", tools=(TOOL,), seed=3)
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        whole = await balancer.call(request)
        finished = await balancer.finished(whole)
        deltas = balancer.deltas(whole)
        for cut in range(1, len(pieces) + 1):
            emitted = sum(map(emitted_chars, deltas[:cut]))
            resume = Resume(token_ids=tuple(range(1, cut + 1)), emitted_chars=emitted)
            rest = await balancer.call(request, resume=resume)
            end = await balancer.finished(rest)
            assert balancer.deltas(rest) == deltas[cut:]
            assert (end.usage, end.finish_reason) == (finished.usage, "tool_calls")


async def test_a_resume_that_does_not_match_is_refused_and_leaves_no_slot_taken(
    balancer: FakeBalancer,
) -> None:
    engine = FakeEngine(words(100), pace="held")
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        error = await refusal(balancer, ASK, resume=Resume(token_ids=(1, 2), emitted_chars=99))
        assert error.code == RefusalCode.RESUME_MISMATCH
        await balancer.until(
            lambda: (b := balancer.last_heartbeat()) is not None and not b.status.running,
            "the slot is free",
        )
        assert engine.running == 0


async def test_a_call_that_the_engine_never_answers_can_be_cancelled_with_the_link(
    balancer: FakeBalancer,
) -> None:
    engine = FakeEngine()
    engine.ignore_submits = True
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        await balancer.call(ASK)
        async with asyncio.timeout(20):
            await engine.events.submitted.wait()
        balancer.break_link()
        await balancer.registered(links=2)
        engine.ignore_submits = False
        await balancer.finished(await balancer.call(ASK))
