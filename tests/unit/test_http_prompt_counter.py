"""Whom an agent counts tokens for, and for how long."""

from __future__ import annotations

import asyncio

import pytest

from balancer.dispatch.inquiry import Answered
from balancer.errors import NoCapacity
from balancer.fleet.queries import TextAnswer, TextQuestion
from balancer.http.prompt_counter import MOST_AT_ONCE, MOST_TEXT_CHARS, PATIENCE_S, PromptCounter
from balancer.policy.identity.principal import Principal
from protocol.chat import Message
from protocol.embeddings import Text, TokenIds
from protocol.generation import GenerationRequest
from protocol.rendering import Rendered
from protocol.to_agent import Render, Tokenize
from tests.support.virtual_time import in_virtual_time

CHAT = GenerationRequest(messages=(Message(role="user", content="hi"),))


class Agents:
    """Satisfies `Asks`. They answer what they are told to, or never."""

    def __init__(self, answer: TextAnswer | NoCapacity | None) -> None:
        self._answer = answer
        self.asked: list[TextQuestion] = []

    async def ask(
        self, question: TextQuestion, principal: Principal, *, request_id: str
    ) -> Answered:
        del principal, request_id
        self.asked.append(question)
        if self._answer is None:
            await asyncio.get_running_loop().create_future()
        if isinstance(self._answer, NoCapacity):
            raise self._answer
        assert self._answer is not None
        return Answered(
            answer=self._answer, agent="one", model="demo", attempts=1, queue_ms=0, total_ms=0
        )


async def counted(
    agents: Agents | PromptCounter, request: GenerationRequest = CHAT, tenant: str = "a"
) -> int | None:
    counter = PromptCounter(agents) if isinstance(agents, Agents) else agents
    return await counter.count(request, Principal(tenant=tenant, role="user"), request_id="req_1")


async def test_a_chat_is_counted_as_its_template_writes_it() -> None:
    agents = Agents(Rendered(prompt_tokens=12))
    assert await counted(agents) == 12
    (question,) = agents.asked
    assert isinstance(question, Render)
    assert (question.messages, question.with_count, question.with_prompt) == (
        CHAT.messages,
        True,
        False,
    )


async def test_a_text_is_counted_by_its_ids() -> None:
    agents = Agents(TokenIds(token_ids=(1, 2, 3)))
    assert await counted(agents, GenerationRequest(prompt="a b")) == 3
    assert agents.asked == [Tokenize(text="a b", add_special=True)]


@pytest.mark.parametrize(
    "request_",
    [
        GenerationRequest(prompt=(1, 2)),
        GenerationRequest(prompt="a", suffix="b"),
        GenerationRequest(prompt="a" * (MOST_TEXT_CHARS + 1)),
    ],
)
async def test_what_is_no_single_question_is_not_asked(request_: GenerationRequest) -> None:
    agents = Agents(Rendered(prompt_tokens=12))
    assert await counted(agents, request_) is None
    assert agents.asked == []


@pytest.mark.parametrize(
    "answer", [NoCapacity("nobody is there", code="no_agents"), Rendered(), Text(text="12")]
)
async def test_whoever_cannot_count_leaves_it_to_the_estimate(
    answer: TextAnswer | NoCapacity,
) -> None:
    assert await counted(Agents(answer)) is None


@in_virtual_time
async def test_nobody_is_waited_for_long_and_then_another_may_be_counted() -> None:
    loop, counter = asyncio.get_running_loop(), PromptCounter(Agents(None))
    for _ in range(2):
        began_s = loop.time()
        assert await counted(counter) is None
        assert loop.time() - began_s == pytest.approx(PATIENCE_S)


@in_virtual_time
async def test_one_of_a_tenant_and_few_in_all_are_counted_at_once() -> None:
    agents = Agents(None)
    counter = PromptCounter(agents)
    tenants = ["a", "a", *(f"tenant {number}" for number in range(2 * MOST_AT_ONCE))]
    await asyncio.gather(*(counted(counter, tenant=tenant) for tenant in tenants))
    assert len(agents.asked) == MOST_AT_ONCE
