"""A roster of agents in memory and the dispatcher of questions to one of them."""

from __future__ import annotations

import asyncio
from typing import Any

from balancer.dispatch.asking import Asker
from balancer.dispatch.inquiry import Answered
from balancer.dispatch.query_turns import QueryTurns
from balancer.errors import BalancerError
from balancer.fleet.queries import TextQuestion
from balancer.fleet.roster import Roster
from balancer.observability.metrics import Metrics
from balancer.policy.identity.principal import Principal
from balancer.settings import Settings
from protocol.to_agent import Tokenize
from tests.support.generations import ANYONE
from tests.support.memory_agent import MemoryAgent
from tests.support.virtual_time import settle


class AskingFleet:
    """On the running loop's clock."""

    def __init__(self, **settings: Any) -> None:
        self.metrics = Metrics()
        self.settings = Settings(**settings)
        self.now = asyncio.get_running_loop().time
        self.roster = Roster(settings=self.settings, metrics=self.metrics, now=self.now)
        self.turns = QueryTurns(self.roster)
        self.asker = Asker(
            roster=self.roster,
            settings=self.settings,
            metrics=self.metrics,
            turns=self.turns,
            now=self.now,
        )
        self._tasks: list[asyncio.Task[Answered]] = []

    def agent(self, name: str = "one", *, queries: int = 4, **more: Any) -> MemoryAgent:
        """One without slots, unless they are asked for."""
        return MemoryAgent(self.roster, name, **{"slots": 0, "queries": queries, **more}).register()

    async def ask(
        self,
        question: TextQuestion | str = "hi",
        *,
        tenant: str = "",
        body_bytes: int = 1,
    ) -> asyncio.Task[Answered]:
        """A question, or the ids of a text; its id is `req_` and its number, from 0 on."""
        if isinstance(question, str):
            question = Tokenize(model="demo", text=question)
        task = asyncio.ensure_future(
            self.asker.ask(
                question,
                Principal(tenant=tenant, role="user") if tenant else ANYONE,
                request_id=f"req_{len(self._tasks)}",
                body_bytes=body_bytes,
            )
        )
        self._tasks.append(task)
        await settle()
        return task

    def sample(self, name: str) -> float:
        """A series' value."""
        return self.metrics.registry.get_sample_value(name, {}) or 0.0


async def answer_first(agent: MemoryAgent) -> None:
    """Answer the oldest question that has no answer yet."""
    agent.answer_text(agent.unanswered_texts[0])
    await settle()


def texts_asked(agent: MemoryAgent) -> list[str]:
    """The texts whose ids the agent was asked for, in order."""
    asked = agent.text_questions.values()
    return [question.text for question in asked if isinstance(question, Tokenize)]


def error_of(task: asyncio.Task[Answered]) -> BalancerError:
    """What a question ended with."""
    error = task.exception()
    assert isinstance(error, BalancerError), error
    return error
