"""A roster of agents in memory and the dispatcher of embeddings."""

from __future__ import annotations

import asyncio

from balancer.dispatch.embedding import EmbeddingDispatcher
from balancer.dispatch.embedding_batch import Embedded
from protocol.embeddings import EmbeddingInput, EmbeddingRequest
from tests.support.memory_agent import MemoryAgent, vector_of
from tests.support.query_fleet import QueryFleet, principal_of
from tests.support.virtual_time import settle

SIZE = 3


def texts(count: int, chars: int = 512) -> tuple[str, ...]:
    """Texts that all differ; a few of them are worth a part of their own."""
    return tuple(f"{chr(97 + index % 26)}{index}".ljust(chars, ".") for index in range(count))


class Fleet(QueryFleet[Embedded]):
    """Asked for the vectors of texts."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        self.dispatcher = EmbeddingDispatcher(**self.parts)

    @property
    def queries(self) -> EmbeddingDispatcher:
        """The dispatcher."""
        return self.dispatcher

    async def submit(self, *, tenant: str = "", body_bytes: int = 1) -> asyncio.Task[Embedded]:
        """One text."""
        return await self.ask(tenant=tenant, body_bytes=body_bytes)

    async def ask(
        self,
        inputs: tuple[EmbeddingInput, ...] = ("hi",),
        *,
        model: str = "demo",
        dimensions: int | None = None,
        timeout_s: float | None = None,
        tenant: str = "",
        body_bytes: int | None = None,
    ) -> asyncio.Task[Embedded]:
        """A batch; its body is as large as its inputs are long, unless a test says another size."""
        return await self._begun(
            self.dispatcher.embed(
                EmbeddingRequest(model=model, inputs=inputs, dimensions=dimensions),
                principal_of(tenant),
                request_id=self._next_id,
                timeout_s=timeout_s,
                body_bytes=sum(map(len, inputs)) if body_bytes is None else body_bytes,
            )
        )


async def answer_all(*agents: MemoryAgent) -> None:
    """Work until nothing is left to do."""
    while any(agent.unanswered_questions for agent in agents):
        for agent in agents:
            for call in tuple(agent.unanswered_questions):
                agent.embed(call)
    await settle()


def asked(agent: MemoryAgent) -> list[tuple[EmbeddingInput, ...]]:
    return [question.inputs for question in agent.questions.values()]


def is_whole(task: asyncio.Task[Embedded], inputs: tuple[EmbeddingInput, ...]) -> bool:
    """Whether every input has its own vector, in its place, and was counted once."""
    embedded = task.result()
    return (
        embedded.vectors == tuple(vector_of(one, SIZE) for one in inputs)
        and embedded.prompt_tokens == sum(map(len, inputs))
    )  # fmt: skip
