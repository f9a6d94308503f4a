"""A roster of agents in memory and the dispatcher of embeddings."""

from __future__ import annotations

import asyncio
from typing import Any

from balancer.dispatch.embedding import (
    EmbeddingDispatcher,
)
from balancer.dispatch.embedding_batch import Embedded
from balancer.errors import (
    BalancerError,
)
from balancer.fleet.roster import Roster
from balancer.observability.metrics import Metrics
from balancer.policy.identity.principal import Principal
from balancer.settings import Settings
from protocol.embeddings import EmbeddingInput, EmbeddingRequest
from tests.support.generations import ANYONE
from tests.support.memory_agent import MemoryAgent, vector_of
from tests.support.virtual_time import settle

SIZE = 3


def texts(count: int, chars: int = 512) -> tuple[str, ...]:
    """Texts that all differ; a few of them are worth a part of their own."""
    return tuple(f"{chr(97 + index % 26)}{index}".ljust(chars, ".") for index in range(count))


class Fleet:
    """A roster and the dispatcher of embeddings, on the running loop's clock."""

    def __init__(self, **settings: Any) -> None:
        self.metrics = Metrics()
        now = asyncio.get_running_loop().time
        given = Settings(**settings)
        self.roster = Roster(settings=given, metrics=self.metrics, now=now)
        self.dispatcher = EmbeddingDispatcher(
            roster=self.roster, settings=given, metrics=self.metrics, now=now
        )
        self._tasks: set[asyncio.Task[Embedded]] = set()

    def agent(self, name: str = "one", *, queries: int = 4, **more: Any) -> MemoryAgent:
        given = {"slots": 0, "dimensions": SIZE, "queries": queries, **more}
        return MemoryAgent(self.roster, name, **given).register()

    async def ask(
        self,
        inputs: tuple[EmbeddingInput, ...] = ("hi",),
        *,
        model: str = "demo",
        dimensions: int | None = None,
        timeout_s: float | None = None,
        tenant: str = "",
    ) -> asyncio.Task[Embedded]:
        task = asyncio.ensure_future(
            self.dispatcher.embed(
                EmbeddingRequest(model=model, inputs=inputs, dimensions=dimensions),
                Principal(tenant=tenant, role="user") if tenant else ANYONE,
                request_id=f"req_{len(self._tasks)}",
                timeout_s=timeout_s,
                body_bytes=sum(map(len, inputs)),
            )
        )
        self._tasks.add(task)
        await settle()
        return task

    def sample(self, name: str) -> float:
        return self.metrics.registry.get_sample_value(name, {}) or 0.0


async def answer_all(*agents: MemoryAgent) -> None:
    """Work until nothing is left to do."""
    while any(agent.unanswered_questions for agent in agents):
        for agent in agents:
            for call in tuple(agent.unanswered_questions):
                agent.embed(call)
    await settle()


def asked(agent: MemoryAgent) -> list[tuple[EmbeddingInput, ...]]:
    return [question.inputs for question in agent.questions.values()]


def error_of(task: asyncio.Task[Embedded]) -> BalancerError:
    error = task.exception()
    assert isinstance(error, BalancerError), error
    return error


def is_whole(task: asyncio.Task[Embedded], inputs: tuple[EmbeddingInput, ...]) -> bool:
    """Whether every input has its own vector, in its place, and was counted once."""
    embedded = task.result()
    return (
        embedded.vectors == tuple(vector_of(one, SIZE) for one in inputs)
        and embedded.prompt_tokens == sum(map(len, inputs))
    )  # fmt: skip
