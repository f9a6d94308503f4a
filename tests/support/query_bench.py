"""A model's queries in the test's own process, turned by hand."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.engine.frames import EngineOptions
from agent.engine.llama.log import LlamaLog
from agent.engine.llama.model import Model
from agent.engine.queries import Queries
from agent.engine.query_frames import (
    EmbedCall,
    Embedded,
    QueryAnswer,
    QueryRefused,
    RerankCall,
    Reranked,
)
from protocol.embeddings import EmbeddingInput

MOST_TURNS = 10_000


class QueryBench:
    """Exact arithmetic, so that numbers can be compared: f32 cache, no flash attention."""

    def __init__(self, path: Path, log: LlamaLog, *, micro_batch_tokens: int = 0) -> None:
        self.options = EngineOptions(
            model_path=str(path),
            threads=1,
            cache_type="f32",
            flash_attention="off",
            micro_batch_tokens=micro_batch_tokens,
        )
        self.model = Model(self.options, log)
        self.queries = Queries(self.model, self.options, log)
        self.answers: dict[int, QueryAnswer] = {}
        self.turns = 0
        self._numbers = count(1)

    def close(self) -> None:
        self.queries.close()
        self.model.close()

    def turn(self, budget: int | None = None) -> None:
        self.turns += 1
        for answer in self.queries.turn(budget):
            assert answer.call not in self.answers
            self.answers[answer.call] = answer

    def finish(self, budget: int | None = None) -> None:
        for _ in range(MOST_TURNS):
            if not self.queries.has_work:
                return
            self.turn(budget)
        raise AssertionError("the queries never end")

    def ask(
        self, make: Callable[[int], EmbedCall | RerankCall], budget: int | None = None
    ) -> QueryAnswer:
        """One call alone, from beginning to end."""
        number = next(self._numbers) + 1000
        self.queries.submit(make(number))
        self.finish(budget)
        return self.answers[number]

    def embed(
        self, *inputs: EmbeddingInput, budget: int | None = None, **fields: object
    ) -> Embedded:
        answer = self.ask(
            lambda call: EmbedCall(call=call, inputs=inputs, **fields),  # type: ignore[arg-type]  # of any test
            budget,
        )
        assert isinstance(answer, Embedded), answer
        return answer

    def rerank(self, query: str, *documents: str) -> Reranked:
        answer = self.ask(lambda call: RerankCall(call=call, query=query, documents=documents))
        assert isinstance(answer, Reranked), answer
        return answer

    def refusal(self, make: Callable[[int], EmbedCall | RerankCall]) -> QueryRefused:
        answer = self.ask(make)
        assert isinstance(answer, QueryRefused), answer
        return answer


def vectors_of(answer: Embedded) -> list[NDArray[np.float32]]:
    """Each input's vectors."""
    rows = np.frombuffer(answer.vectors, "<f4").reshape(-1, answer.dimensions)
    assert len(rows) == sum(answer.rows)
    return np.split(rows, np.cumsum(answer.rows)[:-1])
