"""Questions to one agent: who is asked, who is asked instead, who waits, and what ends it."""

from __future__ import annotations

import asyncio

import pytest

from balancer.dispatch.embedding import LARGEST_PART, EmbeddingDispatcher
from balancer.dispatch.embedding_batch import Embedded
from balancer.errors import (
    BalancerError,
    InvalidRequest,
    ModelNotFound,
    RequestTooLarge,
)
from balancer.fleet.queries import TextAnswer, TextQuestion
from protocol.chat import Message
from protocol.embeddings import EmbeddingRequest, InputError, Scores, TokenIds
from protocol.errors import FrameTooLarge
from protocol.refusals import RefusalCode
from protocol.rendering import Rendered
from protocol.to_agent import Detokenize, Render, Rerank, Tokenize
from tests.support.asking_fleet import AskingFleet, answer_first, texts_asked
from tests.support.generations import ANYONE
from tests.support.memory_agent import MemoryAgent
from tests.support.query_fleet import error_of
from tests.support.toy_answers import toy_answer
from tests.support.virtual_time import in_virtual_time, settle

CHAT = (Message(role="user", content="hi"),)
QUESTIONS: list[TextQuestion] = [
    Tokenize(text="hi", with_pieces=True),
    Detokenize(token_ids=(104, 105)),
    Render(messages=CHAT, with_count=True),
    Rerank(query="a b", documents=("a", "b a")),
]


# --- who is asked ---


@pytest.mark.parametrize("question", QUESTIONS)
@in_virtual_time
async def test_a_question_is_answered_by_an_agent_that_needs_no_slot(
    question: TextQuestion,
) -> None:
    fleet = AskingFleet()
    agent = fleet.agent()
    task = await fleet.ask(question)
    await asyncio.sleep(2.0)
    await answer_first(agent)
    answered = task.result()
    assert answered.answer == toy_answer(question)
    assert (answered.model, answered.agent, answered.attempts) == ("demo", "one", 1)
    assert (answered.queue_ms, answered.total_ms) == (0.0, 2000.0)
    assert fleet.asker.in_flight == 0
    assert fleet.sample("paddler_questions_answered_total") == 1


@in_virtual_time
async def test_the_agent_with_the_most_room_is_asked() -> None:
    fleet = AskingFleet()
    small, large = fleet.agent("small", queries=2), fleet.agent("large", queries=3)
    for text in "abcd":
        await fleet.ask(text)
    assert (texts_asked(large), texts_asked(small)) == (["a", "c"], ["b", "d"])


@in_virtual_time
async def test_of_two_with_equal_room_the_one_that_generates_less_is_asked() -> None:
    fleet = AskingFleet()
    fleet.agent("one", slots=1)
    two = fleet.agent("two", slots=2)
    await fleet.ask("a")
    assert texts_asked(two) == ["a"]


@in_virtual_time
async def test_a_model_is_asked_by_its_version_too() -> None:
    fleet = AskingFleet()
    agent = fleet.agent(aliases=("tiny",))
    for name in ("demo@1", "tiny@1", "tiny"):
        task = await fleet.ask(Tokenize(model=name, text="a"))
        await answer_first(agent)
        assert task.result().model == name
    task = await fleet.ask(Tokenize(model="demo@2", text="a"))
    assert isinstance(error_of(task), ModelNotFound)


# --- when agents fail ---


@in_virtual_time
async def test_a_question_whose_agent_dies_is_put_to_another() -> None:
    fleet = AskingFleet()
    one, two = fleet.agent("one", queries=5), fleet.agent("two")
    task = await fleet.ask("a")
    one.die()
    await settle()
    await answer_first(two)
    assert (task.result().agent, task.result().attempts) == ("two", 2)
    assert fleet.sample("paddler_questions_moved_total") == 1


@in_virtual_time
async def test_a_question_whose_only_agent_dies_waits_for_its_return() -> None:
    fleet = AskingFleet()
    fleet.agent().die()
    agent = fleet.agent(epoch="e2")
    task = await fleet.ask("a")
    agent.die()
    await settle()
    assert fleet.asker.waiting == 1
    again = fleet.agent(epoch="e3")
    await settle()
    await answer_first(again)
    assert task.result().attempts == 2


@in_virtual_time
async def test_an_agent_without_room_is_passed_over_until_it_speaks_again() -> None:
    fleet = AskingFleet()
    one, two = fleet.agent("one", queries=5), fleet.agent("two")
    first = await fleet.ask("a")
    one.refuse_query(one.unanswered_texts[0], RefusalCode.NO_FREE_SLOT)
    await settle()
    await answer_first(two)
    assert (first.result().agent, first.result().attempts) == ("two", 1)
    await fleet.ask("b")
    assert texts_asked(one) == ["a"]
    one.heartbeat()
    await fleet.ask("c")
    assert texts_asked(one) == ["a", "c"]


@in_virtual_time
async def test_the_client_s_own_mistake_is_told_and_nobody_else_is_asked() -> None:
    fleet = AskingFleet()
    one, two = fleet.agent("one", queries=5), fleet.agent("two")
    task = await fleet.ask()
    one.refuse_query(one.unanswered_texts[0], RefusalCode.UNSUPPORTED, "too long", param="text")
    await settle()
    error = error_of(task)
    assert isinstance(error, InvalidRequest)
    assert (error.message, error.param) == ("too long", "text")
    assert not two.text_questions


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (Tokenize(text="ab", with_pieces=True), TokenIds(token_ids=(1, 2))),
        (Render(messages=CHAT, with_count=True), Rendered(prompt="hi")),
        (Rerank(query="q", documents=("a",)), Scores(scores=(None,), tokens=(1,))),
    ],
)
@in_virtual_time
async def test_an_answer_that_lacks_something_is_the_agent_s_failure(
    question: TextQuestion, answer: TextAnswer
) -> None:
    fleet = AskingFleet()
    one, two = fleet.agent("one", queries=5), fleet.agent("two")
    task = await fleet.ask(question)
    one.answer_text(one.unanswered_texts[0], answer)
    await settle()
    await answer_first(two)
    assert task.result().answer == toy_answer(question)


@in_virtual_time
async def test_a_document_without_a_score_is_named() -> None:
    fleet = AskingFleet()
    agent = fleet.agent()
    task = await fleet.ask(Rerank(query="q", documents=("a", "b")))
    code = int(RefusalCode.CONTEXT_TOO_LONG)
    errors = (InputError(1, code, "it is too long"),)
    answer = Scores(scores=(0.5, None), tokens=(1, 9), errors=errors)
    agent.answer_text(agent.unanswered_texts[0], answer)
    await settle()
    error = error_of(task)
    assert (error.code, error.param) == ("context_length_exceeded", "documents[1]")


class NarrowAgent(MemoryAgent):
    """Its link takes no message with a certain word."""

    def _take(self, message: bytes) -> None:
        if b"huge" in message:
            raise FrameTooLarge("it has too many bytes")
        super()._take(message)


@pytest.mark.parametrize(("text", "kind"), [("huge", RequestTooLarge), ("\ud800", InvalidRequest)])
@in_virtual_time
async def test_what_cannot_be_sent_is_refused(text: str, kind: type[BalancerError]) -> None:
    fleet = AskingFleet()
    NarrowAgent(fleet.roster, slots=0, queries=1).register()
    assert isinstance(error_of(await fleet.ask(text)), kind)
    assert fleet.asker.in_flight == 0


@in_virtual_time
async def test_an_agent_that_answers_others_meanwhile_is_given_longer() -> None:
    fleet = AskingFleet(query_timeout_s=10.0, heartbeat_interval_s=300.0)
    agent = fleet.agent()
    await fleet.ask("a")
    await fleet.ask("b")
    await asyncio.sleep(9.0)
    agent.answer_text(agent.unanswered_texts[1])
    await asyncio.sleep(10.0)
    assert not agent.cancelled
    await asyncio.sleep(1.1)
    assert agent.cancelled == [agent.unanswered_texts[0]]


# --- who waits ---


@in_virtual_time
async def test_who_finds_no_room_waits_and_is_served_in_the_order_of_coming() -> None:
    fleet = AskingFleet()
    agent = fleet.agent(queries=1)
    tasks = [await fleet.ask(text, tenant=text) for text in "abcd"]
    assert (fleet.asker.waiting, fleet.sample("paddler_questions_waiting")) == (3, 3)
    for done in range(4):
        assert texts_asked(agent) == list("abcd")[: done + 1]
        await asyncio.sleep(1.0)
        await answer_first(agent)
    assert [task.result().queue_ms for task in tasks] == [0, 1000, 2000, 3000]


@in_virtual_time
async def test_who_comes_back_is_served_before_those_that_came_later() -> None:
    fleet = AskingFleet()
    agent = fleet.agent(queries=1)
    for text in "abc":
        await fleet.ask(text)
    agent.refuse_query(agent.unanswered_texts[0], RefusalCode.NO_FREE_SLOT)
    await settle()
    assert fleet.asker.waiting == 3
    agent.heartbeat()
    await settle()
    assert texts_asked(agent) == ["a", "a"]


@in_virtual_time
async def test_no_newcomer_passes_those_that_wait() -> None:
    fleet = AskingFleet()
    agent = fleet.agent(queries=2)
    await fleet.ask("a")
    agent.refuse_query(agent.unanswered_texts[0], RefusalCode.NO_FREE_SLOT)
    await fleet.ask("b")
    agent.heartbeat()
    await settle()
    assert texts_asked(agent) == ["a", "a", "b"]


@in_virtual_time
async def test_no_newcomer_takes_the_room_that_nobody_told_of_yet() -> None:
    fleet = AskingFleet(heartbeat_interval_s=300.0)
    one = fleet.agent()
    agent = fleet.roster.agent("one")
    assert agent is not None
    agent.health.eject(fleet.now())
    await fleet.ask("a")
    await asyncio.sleep(30.0)
    assert agent.queries_free
    await fleet.ask("b")
    assert texts_asked(one) == []
    fleet.roster.take_back_ejected()
    await settle()
    assert texts_asked(one)[0] == "a"


@in_virtual_time
async def test_an_unknown_model_and_no_model_among_several_are_refused() -> None:
    fleet = AskingFleet()
    one = fleet.agent("one")
    assert isinstance(error_of(await fleet.ask(Tokenize(model="x", text="a"))), ModelNotFound)
    task = await fleet.ask(Tokenize(text="a"))
    await answer_first(one)
    assert task.result().model == "demo"
    fleet.agent("two", model="other")
    error = error_of(await fleet.ask(Tokenize(text="a")))
    assert (error.code, error.param) == ("missing_required_parameter", "model")


@in_virtual_time
async def test_a_second_model_that_comes_meanwhile_ends_the_wait_of_who_named_none() -> None:
    fleet = AskingFleet()
    fleet.agent("one", queries=1)
    await fleet.ask(Tokenize(text="a"))
    task = await fleet.ask(Tokenize(text="b"))
    fleet.agent("two", model="other")
    await settle()
    assert error_of(task).param == "model"


def embedder(fleet: AskingFleet) -> EmbeddingDispatcher:
    """The dispatcher of embeddings on the same agents."""
    return EmbeddingDispatcher(**fleet.parts)


async def embed(embedding: EmbeddingDispatcher, *inputs: str) -> asyncio.Task[Embedded]:
    request = EmbeddingRequest(model="demo", inputs=inputs)
    batch = asyncio.ensure_future(embedding.embed(request, ANYONE, request_id="req_e"))
    await settle()
    return batch


@pytest.mark.parametrize("first", ["question", "batch"])
@in_virtual_time
async def test_of_questions_and_embeddings_the_one_goes_first_that_waits_longer(
    first: str,
) -> None:
    fleet = AskingFleet()
    embedding = embedder(fleet)
    agent = fleet.agent(queries=1, dimensions=3)
    await fleet.ask("a")
    for kind in sorted(("batch", "question"), key=lambda kind: kind != first):
        await asyncio.sleep(1.0)
        if kind == "batch":
            await embed(embedding, "hi")
        else:
            await fleet.ask("b")
    await answer_first(agent)
    assert (len(texts_asked(agent)), len(agent.questions)) == (
        (2, 0) if first == "question" else (1, 1)
    )


@in_virtual_time
async def test_a_long_batch_gives_its_place_to_a_question_that_waits_and_takes_it_again() -> None:
    fleet = AskingFleet()
    embedding = embedder(fleet)
    agent = fleet.agent(queries=1, dimensions=3)
    batch = await embed(embedding, "x" * LARGEST_PART, "y" * LARGEST_PART)
    assert len(agent.questions) == 1
    await fleet.ask("a")
    agent.embed(agent.unanswered_questions[0])
    await settle()
    assert (texts_asked(agent), len(agent.questions)) == (["a"], 1)
    await answer_first(agent)
    agent.embed(agent.unanswered_questions[0])
    await settle()
    assert len(batch.result().vectors) == 2


# --- what ends it from outside ---


@in_virtual_time
async def test_a_client_that_leaves_ends_its_question_wherever_it_is() -> None:
    fleet = AskingFleet()
    agent = fleet.agent(queries=1)
    running, waiting = await fleet.ask("a"), await fleet.ask("b")
    for task in (waiting, running):
        task.cancel()
        await settle()
    assert agent.cancelled == list(agent.text_questions)
    assert (fleet.asker.in_flight, fleet.asker.waiting) == (0, 0)
    agent.refuse_query(agent.unanswered_texts[0], RefusalCode.CANCELLED)
    task = await fleet.ask("c")
    await answer_first(agent)
    assert task.result().attempts == 1


# --- what is counted ---


@in_virtual_time
async def test_scores_count_as_work_of_their_agent_and_small_questions_do_not() -> None:
    fleet = AskingFleet()
    agent = fleet.agent("one", queries=8)
    for question in QUESTIONS:
        await fleet.ask(question)
    for _ in QUESTIONS:
        await answer_first(agent)
    tally, model = fleet.metrics.of_agents.get("one"), fleet.metrics.of_models.get("demo")
    assert (tally.requests, tally.successful, model.requests) == (1, 1, 1)
    assert tally.tokens == model.tokens > 0
    await fleet.ask(QUESTIONS[0])
    await fleet.ask(QUESTIONS[-1])
    agent.die()
    await settle()
    assert (tally.requests, tally.failed) == (2, 1)
