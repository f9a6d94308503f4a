"""Batches of inputs over several agents: split, joined in order, done again where agents fail."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from balancer.dispatch.embedding import (
    LARGEST_PART,
)
from balancer.errors import (
    InvalidRequest,
    ModelNotFound,
    UpstreamFailed,
)
from protocol.embeddings import EmbeddingInput, InputError
from protocol.refusals import RefusalCode
from tests.support.embedding_fleet import SIZE, Fleet, answer_all, asked, is_whole, texts
from tests.support.memory_agent import vector_of
from tests.support.query_fleet import error_of
from tests.support.virtual_time import in_virtual_time, settle

# --- the good way ---


@in_virtual_time
async def test_a_small_request_is_one_question_to_one_agent() -> None:
    fleet = Fleet()
    one, two = fleet.agent("one", queries=2), fleet.agent("two", queries=8)
    inputs: tuple[EmbeddingInput, ...] = ("a", (7, 8), "c")
    task = await fleet.ask(inputs)
    assert (asked(one), asked(two)) == ([], [inputs])
    await asyncio.sleep(2.0)
    await answer_all(two)
    assert is_whole(task, inputs)
    embedded = task.result()
    assert (embedded.model, embedded.agents, embedded.attempts) == ("demo", ("two",), 1)
    assert (embedded.queue_ms, embedded.total_ms) == (0.0, 2000.0)
    assert fleet.sample("paddler_embedded_inputs_total") == 3
    assert fleet.sample("paddler_embedded_tokens_total") == 4
    assert fleet.dispatcher.in_flight == 0


@in_virtual_time
async def test_a_batch_is_split_by_free_capacity_and_joined_in_order() -> None:
    fleet = Fleet()
    small, large = fleet.agent("small", queries=2), fleet.agent("large", queries=6)
    inputs = texts(32)
    task = await fleet.ask(inputs)
    assert asked(large) == [inputs[:24]]
    assert asked(small) == [inputs[24:]]
    await answer_all(small, large)
    assert is_whole(task, inputs)
    assert set(task.result().agents) == {"large", "small"}


@in_virtual_time
async def test_a_large_batch_goes_in_parts_one_an_agent_at_a_time() -> None:
    fleet = Fleet()
    agents = [fleet.agent(name) for name in ("one", "two")]
    inputs = texts(40, LARGEST_PART // 4)
    task = await fleet.ask(inputs)
    assert [len(agent.unanswered_questions) for agent in agents] == [1, 1]
    await answer_all(*agents)
    assert is_whole(task, inputs)
    parts = [part for agent in agents for part in asked(agent)]
    assert all(sum(map(len, part)) <= LARGEST_PART for part in parts)
    done = [sum(map(len, part)) for agent in agents for part in [sum(asked(agent), ())]]
    assert max(done) - min(done) <= LARGEST_PART


@in_virtual_time
async def test_an_input_larger_than_a_part_goes_alone() -> None:
    fleet = Fleet()
    agent = fleet.agent()
    inputs = (*texts(1, 3 * LARGEST_PART), "b")
    task = await fleet.ask(inputs)
    await answer_all(agent)
    assert is_whole(task, inputs)


@in_virtual_time
async def test_fewer_dimensions_are_asked_of_the_agent() -> None:
    fleet = Fleet()
    agent = fleet.agent()
    task = await fleet.ask(("ab",), dimensions=2)
    assert [question.dimensions for question in agent.questions.values()] == [2]
    await answer_all(agent)
    assert task.result().vectors == (vector_of("ab", 2),)


@in_virtual_time
async def test_without_a_model_the_only_one_answers_under_its_name() -> None:
    fleet = Fleet()
    agent = fleet.agent(model="vectors")
    task = await fleet.ask(model="")
    await answer_all(agent)
    assert task.result().model == "vectors"


@in_virtual_time
async def test_vectors_of_different_models_under_one_name_are_never_mixed() -> None:
    fleet = Fleet()
    one, two = fleet.agent("one"), fleet.agent("two", queries=6, resume_key="other")
    inputs = texts(32)
    task = await fleet.ask(inputs)
    assert (asked(one), asked(two)) == ([], [inputs])
    two.die()
    await settle()
    assert asked(one) == [inputs]
    await answer_all(one)
    assert is_whole(task, inputs)


@in_virtual_time
async def test_what_another_model_did_is_done_again_when_its_last_agent_left() -> None:
    fleet = Fleet()
    one = fleet.agent("one", queries=6)
    inputs = texts(8, LARGEST_PART // 2)
    task = await fleet.ask(inputs)
    one.embed(one.unanswered_questions[0])
    two = fleet.agent("two", resume_key="other")
    one.die()
    await answer_all(two)
    assert is_whole(task, inputs)
    assert task.result().agents == ("two",)


# --- when agents fail ---


@in_virtual_time
async def test_a_part_whose_agent_dies_is_done_by_the_others() -> None:
    fleet = Fleet()
    one, two = fleet.agent("one"), fleet.agent("two")
    inputs = texts(32)
    task = await fleet.ask(inputs)
    one.die()
    await settle()
    await answer_all(two)
    assert is_whole(task, inputs)
    assert (task.result().agents, task.result().attempts) == (("two",), 2)
    assert fleet.sample("paddler_embedding_parts_moved_total") == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"rows": (1, 2), "vectors": bytes(4 * SIZE * 3)},
        {"dimensions": SIZE + 1, "vectors": bytes(4 * (SIZE + 1) * 2)},
        {"dimensions": 0, "vectors": b""},
    ],
)
@in_virtual_time
async def test_vectors_that_do_not_fit_together_are_the_agent_s_failure(wrong: Any) -> None:
    fleet = Fleet()
    agent = fleet.agent()
    task = await fleet.ask(("a", "b"), dimensions=SIZE)
    agent.embed(agent.unanswered_questions[0], **wrong)
    await settle()
    assert isinstance(error_of(task), UpstreamFailed)


@in_virtual_time
async def test_an_agent_that_is_drained_gets_nothing_more() -> None:
    fleet = Fleet()
    one, two = fleet.agent("one", queries=6), fleet.agent("two")
    fleet.roster.set_draining("one", draining=True)
    task = await fleet.ask()
    await answer_all(one, two)
    assert task.result().agents == ("two",)


# --- what is refused ---


@in_virtual_time
async def test_an_input_that_is_too_long_is_named_by_its_place_in_the_request() -> None:
    fleet = Fleet()
    one, two = fleet.agent("one"), fleet.agent("two")
    inputs = texts(32)
    task = await fleet.ask(inputs)
    (call,) = two.unanswered_questions
    count = len(two.questions[call].inputs)
    two.embed(
        call,
        errors=(InputError(3, int(RefusalCode.CONTEXT_TOO_LONG), "too long"),),
        rows=tuple(int(index != 3) for index in range(count)),
        vectors=bytes(4 * SIZE * (count - 1)),
    )
    await settle()
    place = inputs.index(str(two.questions[call].inputs[3]))
    error = error_of(task)
    assert (error.status, error.code) == (400, "context_length_exceeded")
    assert error.param == f"input[{place}]"
    assert one.cancelled == list(one.questions)


@in_virtual_time
async def test_what_a_model_cannot_do_is_refused_before_it_is_asked() -> None:
    fleet = Fleet()
    agent = fleet.agent()
    blind = fleet.agent("blind", model="blind", dimensions=0)
    wide = fleet.agent("wide", model="wide", dimensions=8192)
    refused = [
        await fleet.ask(dimensions=SIZE + 1),
        await fleet.ask(model="blind"),
        await fleet.ask(texts(1100, 4), model="wide"),
        await fleet.ask(model=""),
    ]
    assert all(isinstance(error_of(task), InvalidRequest) for task in refused)
    params = [error_of(task).param for task in refused]
    assert params == ["dimensions", "model", "input", "model"]
    assert isinstance(error_of(await fleet.ask(model="nobody")), ModelNotFound)
    assert [agent.questions, blind.questions, wide.questions] == [{}, {}, {}]
    assert fleet.dispatcher.in_flight == 0


@in_virtual_time
async def test_a_model_that_pools_nothing_is_refused() -> None:
    fleet = Fleet()
    agent = fleet.agent()
    task = await fleet.ask(("ab",))
    agent.embed(agent.unanswered_questions[0], pooling="none", rows=(2,), vectors=bytes(8 * SIZE))
    await settle()
    assert (error_of(task).status, error_of(task).param) == (400, "model")


@in_virtual_time
async def test_text_that_is_no_unicode_is_refused() -> None:
    fleet = Fleet()
    fleet.agent()
    assert isinstance(error_of(await fleet.ask(("\ud800",))), InvalidRequest)


# --- what is counted ---


def counted(fleet: Fleet, name: str) -> tuple[int, int, int, int]:
    """Requests, those that ended well, those that failed, tokens."""
    tally = fleet.metrics.of_agents.get(name)
    return tally.requests, tally.successful, tally.failed, tally.tokens


@in_virtual_time
async def test_each_agent_of_a_batch_is_credited_with_what_it_did() -> None:
    fleet = Fleet()
    small, large = fleet.agent("small", queries=2), fleet.agent("large", queries=6)
    task = await fleet.ask(texts(32))
    await asyncio.sleep(2.0)
    await answer_all(small, large)
    tokens = task.result().prompt_tokens
    of_small, of_large = counted(fleet, "small"), counted(fleet, "large")
    assert of_small[:3] == of_large[:3] == (1, 1, 0)
    assert 0 < of_small[3] < of_large[3]
    assert of_small[3] + of_large[3] == tokens
    model = fleet.metrics.of_models.get("demo")
    assert (model.requests, model.tokens, model.response_s) == (1, tokens, 2.0)


@in_virtual_time
async def test_an_agent_that_breaks_off_failed_and_one_that_is_left_did_not() -> None:
    fleet = Fleet()
    one = fleet.agent("one", queries=8)
    fleet.agent("two", queries=2)
    task = await fleet.ask()
    one.die()
    await settle()
    assert (counted(fleet, "one"), counted(fleet, "two")) == ((1, 0, 1, 0), (0, 0, 0, 0))
    task.cancel()
    await settle()
    assert counted(fleet, "two") == (1, 0, 0, 0)
