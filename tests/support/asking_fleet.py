"""A roster of agents in memory and the dispatcher of questions to one of them."""

from __future__ import annotations

import asyncio

from balancer.dispatch.asking import Asker
from balancer.dispatch.inquiry import Answered
from balancer.fleet.queries import TextQuestion
from protocol.to_agent import Tokenize
from tests.support.memory_agent import MemoryAgent
from tests.support.query_fleet import QueryFleet, principal_of
from tests.support.virtual_time import settle


class AskingFleet(QueryFleet[Answered]):
    """Asked for a text's ids, unless a test asks for something else."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        self.asker = Asker(**self.parts)

    @property
    def queries(self) -> Asker:
        """The asker."""
        return self.asker

    async def submit(self, *, tenant: str = "", body_bytes: int = 1) -> asyncio.Task[Answered]:
        """A short text."""
        return await self.ask(tenant=tenant, body_bytes=body_bytes)

    async def ask(
        self,
        question: TextQuestion | str = "hi",
        *,
        tenant: str = "",
        body_bytes: int = 1,
    ) -> asyncio.Task[Answered]:
        """A question, or the ids of a text."""
        if isinstance(question, str):
            question = Tokenize(model="demo", text=question)
        return await self._begun(
            self.asker.ask(
                question,
                principal_of(tenant),
                request_id=self._next_id,
                body_bytes=body_bytes,
            )
        )


async def answer_first(agent: MemoryAgent) -> None:
    """Answer the oldest question that has no answer yet."""
    agent.answer_text(agent.unanswered_texts[0])
    await settle()


def texts_asked(agent: MemoryAgent) -> list[str]:
    """The texts whose ids the agent was asked for, in order."""
    asked = agent.text_questions.values()
    return [question.text for question in asked if isinstance(question, Tokenize)]
