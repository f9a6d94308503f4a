"""A chat's prompt through the agent: rendered, counted by the engine, and what ends it early."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec import structs

from agent.engine.engine import Engine
from agent.engine.frames import CancelCall, EngineOptions
from agent.engine.query_frames import QueryRefused, TokenizeCall, Tokenized
from protocol.chat import FunctionDefinition, ImagePart, Message, TextPart, Tool
from protocol.codec import decode_result, encode_request
from protocol.generation import GenerationRequest
from protocol.jsonrpc import ErrorObject, ErrorResponse, Response
from protocol.refusals import RefusalCode
from protocol.rendering import Rendered
from protocol.to_agent import Cancel, Render
from tests.support.cluster import eventually
from tests.support.fake_balancer import FakeBalancer, fake_balancer
from tests.support.fake_engine import FACTS, FakeEngine
from tests.support.running_agent import ENDLESS_FOR_HI, running_agent
from tests.support.tiny_gguf import write_tiny_gguf

HI = (Message(role="user", content="hi"),)
PROMPT = "[user]hi[assistant]"


@pytest.fixture
async def balancer() -> AsyncIterator[FakeBalancer]:
    async with fake_balancer() as balancer:
        yield balancer


async def rendered(balancer: FakeBalancer, call: int) -> Rendered:
    answer = await balancer.answered(call)
    assert isinstance(answer, Response), answer
    return decode_result(answer.result, Rendered)


async def refusal(balancer: FakeBalancer, call: int) -> ErrorObject:
    answer = await balancer.answered(call)
    assert isinstance(answer, ErrorResponse), answer
    return answer.error


async def counting(engine: FakeEngine) -> TokenizeCall:
    """What the engine is to count, once it is asked."""

    def asked() -> list[TokenizeCall]:
        return [command for command in engine.commands if isinstance(command, TokenizeCall)]

    await eventually(asked, what="the engine is asked")
    [command] = asked()
    return command


async def test_a_prompt_is_rendered_without_the_engine(balancer: FakeBalancer) -> None:
    engine = FakeEngine()
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        whole = await balancer.ask(Render(messages=HI))
        assert await rendered(balancer, whole) == Rendered(prompt=PROMPT)
        parts = (Message(role="user", content=(TextPart(text="h"), TextPart(text="i"))),)
        several = await balancer.ask(Render(messages=parts))
        assert await rendered(balancer, several) == Rendered(prompt=PROMPT)
    assert engine.commands == []


async def test_a_template_sees_the_date_the_tools_and_the_arguments(
    balancer: FakeBalancer,
) -> None:
    template = (
        "{{ strftime_now('%Y') }} {{ tools[0].function.name }} {{ style }} {{ enable_thinking }} "
        "{{ add_generation_prompt }}"
    )
    async with running_agent(balancer.address, FakeEngine(), chat_template=template):
        await balancer.has_slots(4)
        call = await balancer.ask(
            Render(
                messages=HI,
                tools=(Tool(function=FunctionDefinition(name="port")),),
                enable_thinking=False,
                template_arguments={"style": "short", "add_generation_prompt": False},
                created=1_700_000_000,
            )
        )
        assert (await rendered(balancer, call)).prompt == "2023 port short False False"


@pytest.mark.parametrize(("with_prompt", "shown"), [(True, PROMPT), (False, "")])
async def test_its_tokens_are_counted_as_a_generation_s_prompt_would_be(
    balancer: FakeBalancer, with_prompt: bool, shown: str
) -> None:
    engine = FakeEngine()
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        call = await balancer.ask(Render(messages=HI, with_prompt=with_prompt, with_count=True))
        command = await counting(engine)
        assert command == TokenizeCall(call=command.call, text=PROMPT, as_prompt=True)
        engine.answer(Tokenized(call=command.call, token_ids=(5, 6, 7)))
        assert await rendered(balancer, call) == Rendered(prompt=shown, prompt_tokens=3)


async def test_an_engine_without_room_to_count_is_an_agent_without_room(
    balancer: FakeBalancer,
) -> None:
    engine = FakeEngine()
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        call = await balancer.ask(Render(messages=HI, with_count=True))
        command = await counting(engine)
        code = int(RefusalCode.NO_FREE_SLOT)
        engine.answer(QueryRefused(call=command.call, code=code, message="64 calls wait"))
        assert (await refusal(balancer, call)).code == RefusalCode.NO_FREE_SLOT


async def test_without_a_template_the_words_are_those_of_a_generation(
    balancer: FakeBalancer,
) -> None:
    engine = FakeEngine(facts=structs.replace(FACTS, chat_template=""))
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        of_render = await refusal(balancer, await balancer.ask(Render(messages=HI)))
        of_generation = await balancer.answered(await balancer.call(GenerationRequest(messages=HI)))
    assert isinstance(of_generation, ErrorResponse)
    assert of_render == of_generation.error
    assert "no chat template" in of_render.message


async def test_images_are_refused_by_name(balancer: FakeBalancer) -> None:
    image = (Message(role="user", content=(ImagePart(data=b"GIF89a"),)),)
    async with running_agent(balancer.address, FakeEngine()):
        await balancer.has_slots(4)
        error = await refusal(balancer, await balancer.ask(Render(messages=image)))
    assert (error.code, error.data) == (RefusalCode.UNSUPPORTED, {"param": "messages"})


async def test_a_template_that_refuses_is_heard_and_the_next_question_answered(
    balancer: FakeBalancer,
) -> None:
    template = "{% if messages[0].content == 'no' %}{{ raise_exception('Not so.') }}{% endif %}yes"
    no = (Message(role="user", content="no"),)
    async with running_agent(balancer.address, FakeEngine(), chat_template=template):
        await balancer.has_slots(4)
        error = await refusal(balancer, await balancer.ask(Render(messages=no)))
        assert (error.code, error.message) == (RefusalCode.INVALID_TEMPLATE, "Not so.")
        call = await balancer.ask(Render(messages=HI))
        assert await rendered(balancer, call) == Rendered(prompt="yes")


async def test_a_question_that_is_cancelled_while_it_is_counted_is_answered_so(
    balancer: FakeBalancer,
) -> None:
    engine = FakeEngine()
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        call = await balancer.ask(Render(messages=HI, with_count=True))
        command = await counting(engine)
        await balancer.notify(Cancel(call=call))
        assert (await refusal(balancer, call)).code == RefusalCode.CANCELLED
        assert engine.commands[-1] == CancelCall(call=command.call)
        engine.answer(Tokenized(call=command.call, token_ids=(5,)))
        other = await balancer.ask(Render(messages=HI))
        assert (await rendered(balancer, other)).prompt == PROMPT


async def test_a_question_that_is_cancelled_while_it_is_rendered_never_reaches_the_engine(
    balancer: FakeBalancer,
) -> None:
    engine = FakeEngine()
    async with running_agent(balancer.address, engine, chat_template=ENDLESS_FOR_HI):
        await balancer.has_slots(4)
        call = await balancer.ask(Render(messages=HI, with_count=True))
        await balancer.notify(Cancel(call=call))
        assert (await refusal(balancer, call)).code == RefusalCode.CANCELLED
    assert not any(isinstance(command, TokenizeCall) for command in engine.commands)


async def test_a_dead_engine_takes_what_it_counts_with_it(balancer: FakeBalancer) -> None:
    engine = FakeEngine()
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        call = await balancer.ask(Render(messages=HI, with_count=True))
        await counting(engine)
        engine.die("SIGSEGV", stay_dead=True)
        assert (await refusal(balancer, call)).code == RefusalCode.ENGINE_FAILED
        await balancer.has_slots(0)
        call = await balancer.ask(Render(messages=HI))
        assert (await refusal(balancer, call)).code == RefusalCode.MODEL_NOT_LOADED


async def test_an_id_in_use_is_refused(balancer: FakeBalancer) -> None:
    engine = FakeEngine()
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        call = await balancer.ask(Render(messages=HI, with_count=True))
        await counting(engine)
        await balancer.say(encode_request(call, Render(messages=HI)))
        assert (await refusal(balancer, call)).code == -32600


async def test_a_model_answers_to_its_names_with_their_version(balancer: FakeBalancer) -> None:
    async with running_agent(balancer.address, FakeEngine(), aliases=("a", "b")):
        await balancer.has_slots(4)
        for name in ("a", "a@1", "b@1"):
            call = await balancer.ask(Render(model=name, messages=HI))
            assert (await rendered(balancer, call)).prompt == PROMPT
        call = await balancer.ask(Render(model="a@2", messages=HI))
        assert (await refusal(balancer, call)).code == RefusalCode.MODEL_NOT_LOADED


@pytest.mark.parametrize("adds_bos", [False, True])
async def test_a_real_engine_counts_as_many_tokens_as_the_generation_has(
    balancer: FakeBalancer, tmp_path: Path, adds_bos: bool
) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf", adds_bos=adds_bos)
    engine = Engine(EngineOptions(model_path=str(path), slots=2, threads=1))
    async with running_agent(balancer.address, engine, chat_template="{{ messages[0].content }}!"):
        await balancer.has_slots(2)
        for text in ("hi", "<|im_start|>hello wörld"):
            chat = (Message(role="user", content=text),)
            counted = await rendered(
                balancer, await balancer.ask(Render(messages=chat, with_count=True))
            )
            call = await balancer.call(GenerationRequest(messages=chat, max_tokens=1))
            usage = (await balancer.finished(call)).usage
            assert counted == Rendered(prompt=f"{text}!", prompt_tokens=usage.prompt_tokens)
