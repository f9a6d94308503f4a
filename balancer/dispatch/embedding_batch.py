"""One batch of inputs to be embedded: what is done of it, what is on its way, what waits.

Inputs are known by their place in the request, so answers are joined in order however they come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from msgspec import Struct

from balancer.dispatch.query_request import QueryRequest
from balancer.fleet.agent import Agent
from balancer.fleet.queries import Answer
from balancer.policy.limits.estimate import text_estimate
from protocol.embeddings import FLOAT_BYTES, EmbeddingInput, EmbeddingRequest, Embeddings
from protocol.invariants import instance_of
from protocol.jsonrpc import ErrorObject
from protocol.to_agent import Embed

TOKEN_COST = 4
"""A token id costs as much as so many characters."""


class Embedded(Struct, frozen=True, kw_only=True):
    """All vectors in the order of the inputs, each raw little-endian float32. `attempts` is 1 if
    every part was done by the agent that was asked first."""

    model: str
    vectors: tuple[bytes, ...]
    prompt_tokens: int
    agents: tuple[str, ...]
    """Those that answered, in the order of their first answers."""
    attempts: int
    queue_ms: float
    total_ms: float


class PartKeeper(Protocol):
    """Who hears what becomes of a part."""

    def on_answer(self, part: Part, answer: Embeddings) -> None: ...

    def on_refused(self, part: Part, error: ErrorObject) -> None: ...

    def on_link_lost(self, part: Part) -> None: ...


@dataclass(slots=True, eq=False)
class Part:
    """Inputs that an agent was asked for. Satisfies the link's `AnswerHandler`."""

    batch: Batch
    agent: Agent
    indexes: tuple[int, ...]
    keeper: PartKeeper
    rank: tuple[int, int]
    """Its second number tells parts apart."""
    started_s: float
    dimensions: int
    """Of each vector, as was asked for or as the agent says of its model."""
    charged_ms: float = 0.0
    """What its tenant was charged for it."""
    call_id: int = 0
    timer: asyncio.TimerHandle | None = None

    @property
    def queue(self) -> str:
        """The model's name as the request has it."""
        return self.batch.queue

    @property
    def tenant(self) -> str:
        """Whose it is."""
        return self.batch.tenant

    @property
    def body_bytes(self) -> int:
        """About its share of the request."""
        return sum(_cost(self.batch.request.inputs[index]) for index in self.indexes)

    @property
    def length(self) -> int:
        """It generates nothing."""
        return 0

    def first_problem(self, answer: Embeddings) -> ErrorObject:
        """Of an answer with errors: what is wrong with the first input that has no vector, as if
        the question had been refused for it."""
        first = min(answer.errors, key=lambda error: error.index)
        is_only = len(self.batch.request.inputs) == 1
        param = "input" if is_only else f"input[{self.indexes[first.index]}]"
        return ErrorObject(code=first.code, message=first.message, data={"param": param})

    def on_answer(self, answer: Answer) -> None:
        """The vectors."""
        self.keeper.on_answer(self, instance_of(answer, Embeddings))

    def on_refused(self, error: ErrorObject) -> None:
        """Why there are none."""
        self.keeper.on_refused(self, error)

    def on_link_lost(self) -> None:
        """The agent is gone."""
        self.keeper.on_link_lost(self)


class Batch(QueryRequest[Embedded]):
    """A request from its arrival to its end. What is done in part and lost an agent comes first of
    those who wait, until it is given vectors again."""

    __slots__ = (
        "_prompt_tokens",
        "_vectors",
        "deadline_s",
        "kind",
        "parts",
        "pending",
        "request",
        "tokens_of",
    )

    def __init__(
        self,
        request: EmbeddingRequest,
        *,
        ordinal: int,
        tenant: str,
        request_id: str,
        body_bytes: int,
        now_s: float,
        deadline_s: float | None,
    ) -> None:
        super().__init__(
            ordinal=ordinal,
            tenant=tenant,
            request_id=request_id,
            body_bytes=body_bytes,
            now_s=now_s,
        )
        self.request = request
        self.deadline_s = deadline_s
        self.pending = list(range(len(request.inputs)))
        """Inputs that nobody was asked for, in order."""
        self.parts: dict[Agent, Part] = {}
        """On their way: one an agent at most."""
        self.kind = ""
        """Of the agents that it is on; vectors of different models do not go together."""
        self._vectors: list[bytes | None] = [None] * len(request.inputs)
        self._prompt_tokens = 0
        self.tokens_of: dict[str, int] = {}
        """Tokens of what each agent did, in the order of their first answers."""

    @property
    def queue(self) -> str:
        """The model's name as the request has it."""
        return self.request.model

    @property
    def agents_at_work(self) -> Sequence[Agent]:
        """Those that it is split over."""
        return tuple(self.parts)

    @property
    def tokens_worked_on(self) -> int:
        """Those that are done, and what is on its way, as estimated."""
        inputs = self.request.inputs
        on_their_way = [inputs[index] for part in self.parts.values() for index in part.indexes]
        return sum(self.tokens_of.values()) + sum(map(text_estimate, on_their_way))

    def left_s(self, now_s: float) -> float | None:
        """Seconds until its own deadline; None: it has none."""
        return None if self.deadline_s is None else self.deadline_s - now_s

    def question(self, indexes: Iterable[int]) -> Embed:
        """What an agent is asked for these inputs."""
        request = self.request
        return Embed(
            model=request.model,
            inputs=tuple(request.inputs[index] for index in indexes),
            pooling=request.pooling,
            normalize=request.normalize,
            dimensions=request.dimensions,
            truncate=request.truncate,
        )

    def costs(self) -> list[int]:
        """About what each pending input costs, in characters."""
        return [_cost(self.request.inputs[index]) for index in self.pending]

    def sent(self, part: Part) -> None:
        """An agent was asked for them."""
        self.parts[part.agent] = part
        taken = set(part.indexes)
        self.pending = [index for index in self.pending if index not in taken]

    def waits_again(self, now_s: float) -> None:
        """It lost an agent: it may wait anew, and goes first if something of it is done."""
        super().waits_again(now_s)
        if self.tokens_of:
            self.rank = (0, self.rank[1])

    def put_back(self, part: Part) -> None:
        """The agent does not do them after all. Nothing done, any agent will do again."""
        self.pending = sorted([*self.pending, *part.indexes])
        if not self.parts and not self.tokens_of:
            self.kind = ""

    def take(self, part: Part, answer: Embeddings, *, now_s: float) -> bool:
        """An agent's vectors; False: they are not one an input, or of another length."""
        if set(answer.rows) != {1} or answer.dimensions != part.dimensions:
            return False
        size_bytes = FLOAT_BYTES * answer.dimensions
        for place, index in enumerate(part.indexes):
            self._vectors[index] = answer.vectors[place * size_bytes : (place + 1) * size_bytes]
        self._prompt_tokens += sum(answer.tokens)
        done_before = self.tokens_of.get(part.agent.name, 0)
        self.tokens_of[part.agent.name] = done_before + sum(answer.tokens)
        self.waits_since_s = now_s
        self.rank = (1, self.rank[1])  # it has a part just now, so it does not wait
        return True

    def begin_again(self) -> None:
        """Forget what is done: no agent is left that can go on with it."""
        self.kind = ""
        self._vectors = [None] * len(self._vectors)
        self._prompt_tokens = 0
        self.tokens_of.clear()
        self.pending = list(range(len(self._vectors)))

    def finish_if_whole(self, model: str, *, now_s: float) -> None:
        """End it well if every input has its vector."""
        vectors = tuple(vector for vector in self._vectors if vector is not None)
        if len(vectors) < len(self._vectors) or self.is_over:
            return
        self.done.set_result(
            Embedded(
                model=model,
                vectors=vectors,
                prompt_tokens=self._prompt_tokens,
                agents=tuple(self.tokens_of),
                attempts=self.attempts,
                queue_ms=self.queue_ms,
                total_ms=self.age_ms(now_s),
            )
        )


def _cost(given: EmbeddingInput) -> int:
    return max(1, len(given) if isinstance(given, str) else TOKEN_COST * len(given))
