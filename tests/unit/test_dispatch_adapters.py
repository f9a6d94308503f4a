"""LoRA adapters as models of their own: who serves them, and what an agent is sent."""

from __future__ import annotations

import pytest
from msgspec import structs

from balancer.errors import InvalidRequest, ModelNotFound
from protocol.prefix_chain import PrefixChain
from protocol.to_agent import GenerateTokens, Rerank, Tokenize
from tests.support.asking_fleet import AskingFleet
from tests.support.embedding_fleet import Fleet
from tests.support.generations import Balancer, finish_all
from tests.support.memory_agent import MemoryAgent
from tests.support.query_fleet import error_of
from tests.support.virtual_time import in_virtual_time, settle

POET = (("poet", 1.0),)
LONG = "a long prompt that is worth keeping together. " * 100


def only_call(agent: MemoryAgent) -> GenerateTokens:
    (call,) = agent.calls.values()
    return call


@pytest.mark.parametrize("name", ["demo:poet", "small:poet"])
@in_virtual_time
async def test_an_agent_is_sent_the_model_s_own_name_and_the_adapter(name: str) -> None:
    balancer = Balancer()
    agent = balancer.agent(aliases=("small",), adapters=("poet", "clerk"))
    await balancer.ask(name)
    call = only_call(agent)
    assert (call.model, call.adapters) == ("demo", POET)
    await finish_all(agent)


@in_virtual_time
async def test_the_model_itself_is_asked_for_without_adapters() -> None:
    balancer = Balancer()
    agent = balancer.agent(adapters=("poet",))
    await balancer.ask("demo")
    await balancer.ask("")
    assert [(call.model, call.adapters) for call in agent.calls.values()] == [("demo", ())] * 2
    await finish_all(agent)


@in_virtual_time
async def test_only_agents_that_have_the_adapter_are_asked() -> None:
    balancer = Balancer()
    plain = balancer.agent("plain", slots=8)
    poet = balancer.agent("poet", slots=1, adapters=("poet",))
    await balancer.ask("demo:poet")
    await balancer.ask("demo:poet")
    assert (len(plain.calls), len(poet.calls)) == (0, 1)
    assert balancer.dispatcher.waiting == 1
    await finish_all(poet)
    assert len(poet.calls) == 2


@in_virtual_time
async def test_a_model_that_has_such_a_name_of_its_own_is_asked_for_as_it_is() -> None:
    balancer = Balancer()
    merged = balancer.agent("merged", model="demo:poet")
    await balancer.ask("demo:poet")
    assert (only_call(merged).model, only_call(merged).adapters) == ("demo:poet", ())
    await finish_all(merged)


@in_virtual_time
async def test_an_adapter_that_nobody_has_is_a_model_that_nobody_serves() -> None:
    balancer = Balancer()
    balancer.agent(adapters=("poet",))
    generation = await balancer.ask("demo:singer")
    assert isinstance(generation.error, ModelNotFound)


@in_virtual_time
async def test_what_an_adapter_computed_is_no_prefix_of_the_model_s_nor_of_another_s() -> None:
    balancer = Balancer()
    agent = balancer.agent(adapters=("poet", "clerk"))
    for name in ("demo", "demo:poet", "demo:clerk", "demo:poet"):
        await balancer.ask(name, prompt=LONG)
    plain, poet, clerk, again = (call.prefix_chain for call in agent.calls.values())
    assert len({plain, poet, clerk}) == 3
    assert again == poet
    for call in agent.calls.values():
        assert call.prefix_chain == PrefixChain.of(call, cache_scope=call.cache_scope).packed
    await finish_all(agent)


@in_virtual_time
async def test_who_waits_for_the_first_agent_gets_the_adapter_that_comes_with_it() -> None:
    balancer = Balancer()
    generation = await balancer.ask("demo:poet", prompt=LONG)
    assert not generation.task.done()
    agent = balancer.agent(adapters=("poet",))
    await settle()
    call = only_call(agent)
    assert (call.model, call.adapters) == ("demo", POET)
    assert call.prefix_chain == PrefixChain.of(call, cache_scope=call.cache_scope).packed
    await finish_all(agent)


@in_virtual_time
async def test_a_generation_goes_on_with_its_adapter_elsewhere() -> None:
    balancer = Balancer()
    one = balancer.agent("one", adapters=("poet",))
    generation = await balancer.ask("demo:poet")
    balancer.agent("plain", slots=8)
    two = balancer.agent("two", adapters=("poet",))
    (call,) = one.answer()
    one.step({call: "a"})
    one.die()
    await settle()
    (again,) = two.answer()
    assert (two.calls[again].model, two.calls[again].adapters) == ("demo", POET)
    two.step({again: "b"})
    await finish_all(two)
    assert generation.sink.text == "ab"


@in_virtual_time
async def test_an_adapter_that_an_agent_tells_of_later_can_be_asked_for() -> None:
    balancer = Balancer()
    agent = balancer.agent()
    assert not balancer.roster.candidates("demo:poet")
    assert balancer.roster.adapters_of("demo:poet") == ()
    assert agent.model is not None
    agent.model = structs.replace(agent.model, adapters=("poet",))
    agent.heartbeat()
    assert [one.name for one in balancer.roster.candidates("demo:poet")] == ["one"]
    assert balancer.roster.adapters_of("demo:poet") == POET


@in_virtual_time
async def test_embeddings_under_an_adapter_are_refused_by_name() -> None:
    fleet = Fleet()
    agent = fleet.agent(adapters=("poet",))
    error = error_of(await fleet.ask(model="demo:poet"))
    assert isinstance(error, InvalidRequest)
    assert error.param == "model"
    assert "ask 'demo'" in error.message
    assert not agent.questions


@in_virtual_time
async def test_texts_are_tokens_to_the_model_whatever_the_adapter() -> None:
    fleet = AskingFleet()
    agent = fleet.agent(adapters=("poet",))
    await fleet.ask(Tokenize(model="demo:poet", text="hi"))
    assert [question.model for question in agent.text_questions.values()] == ["demo"]


@in_virtual_time
async def test_scores_under_an_adapter_are_refused_by_name() -> None:
    fleet = AskingFleet()
    agent = fleet.agent(adapters=("poet",))
    task = await fleet.ask(Rerank(model="demo:poet", query="a", documents=("b",)))
    refused = task.exception()
    assert isinstance(refused, InvalidRequest)
    assert refused.param == "model"
    assert not agent.text_questions
    assert (fleet.asker.in_flight, fleet.asker.waiting) == (0, 0)
