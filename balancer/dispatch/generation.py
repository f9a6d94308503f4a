"""One generation as those see it who let it wait, choose an agent for it and send it there.

The request and what it gave `so_far` are all that another agent needs to go on with it, at the very
next character.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable

from msgspec import structs

from balancer.dispatch.chain import Chain
from balancer.dispatch.journal import Route
from balancer.dispatch.listing import RequestSnapshot, RequestState
from balancer.dispatch.siblings import Siblings
from balancer.dispatch.sink import Outcome
from balancer.dispatch.so_far import SoFar
from balancer.dispatch.times import Times
from balancer.fleet.agent import Agent
from balancer.policy.failover import Trail
from balancer.policy.holds import length_class
from protocol.generation import GenerationRequest
from protocol.to_agent import GenerateTokens, generate_tokens_call
from protocol.to_balancer import Finished


def resume_queue(resume_key: str) -> str:
    """The name under which generations wait that only agents of this key can go on with. No model
    has such a name."""
    return f"\x00{resume_key}"


class Generation(ABC):
    """From its arrival to its end. `done` becomes its outcome or its error. Satisfies the waiting
    room's `Waiter`."""

    __slots__ = (
        "_chain",
        "_created",
        "_deadline_s",
        "_now",
        "attempts",
        "avoided",
        "body_bytes",
        "choice",
        "done",
        "expiry",
        "has_begun",
        "length",
        "may_hold",
        "model",
        "ordinal",
        "prefers",
        "request",
        "request_id",
        "route",
        "siblings",
        "so_far",
        "tenant",
        "times",
        "trail",
    )
    """A thousand may wait, and a dictionary for each would be as large as the rest."""

    def __init__(
        self,
        request: GenerationRequest,
        *,
        model: str,
        ordinal: int,
        tenant: str,
        request_id: str,
        body_bytes: int,
        deadline_s: float | None,
        created: int,
        route: Route,
        chain: Chain,
        choice: int,
        siblings: Siblings | None,
        times: Times,
        now: Callable[[], float],
    ) -> None:
        self.request = request
        self.ordinal = ordinal
        self.model = model
        self.tenant = tenant
        self.body_bytes = body_bytes
        self.length = length_class(request.max_tokens)
        self.request_id = request_id
        self.choice = choice
        self.route = route
        self.siblings = siblings
        self.so_far = SoFar()
        self.trail = Trail()
        self.avoided: set[Agent] = set()
        """Those that failed it: others are preferred."""
        self.times = times
        self.done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.expiry: asyncio.TimerHandle | None = None
        self.attempts = 0
        """Agents tried so far."""
        self.has_begun = False
        """Whether an agent ever gave it a slot."""
        self.prefers = ""
        """The agent that has its state."""
        self.may_hold = False
        """Whether it may wait for a full agent that has its beginning cached."""
        self._created = created
        self._deadline_s = deadline_s
        self._chain = chain
        self._now = now

    @property
    def rank(self) -> tuple[int, int]:
        """Its place among those who wait: what has begun comes first, then by age."""
        return (0 if self.has_begun else 1), self.ordinal

    @property
    def queue(self) -> str:
        """Whose agents it can use: its model's, or of those the ones that know its tokens."""
        key = self.so_far.resume_key
        return self.model if key is None else resume_queue(key)

    @property
    def left_s(self) -> float | None:
        """Seconds until its own deadline; None: it has none."""
        return None if self._deadline_s is None else self._deadline_s - self._now()

    @property
    def is_over(self) -> bool:
        """Whether it has its outcome, its error, or no client any more."""
        return self.done.done()

    @property
    def prefix_chain(self) -> bytes:
        """The request's chain, packed."""
        return self._chain.packed

    @property
    def cache_scope(self) -> str:
        """Within which its cached tokens are shared, wherever it runs."""
        return self._chain.cache_scope

    @property
    def queue_ms(self) -> float:
        """Milliseconds from arrival to the first claim of a slot, or until now."""
        is_waiting = not (self.has_begun or self.agent or self.is_over)
        return self.times.queue_ms(is_waiting=is_waiting)

    @property
    @abstractmethod
    def agent(self) -> Agent | None:
        """Who works on it now."""

    @property
    @abstractmethod
    def state(self) -> RequestState:
        """As operators see it."""

    def can_use(self, agent: Agent) -> bool:
        """Whether the agent can go on with what there is."""
        key = self.so_far.resume_key
        return key is None or (key != "" and key == agent.resume_key)

    def request_for(self, model: str) -> GenerationRequest:
        """The request with the name of the model that was found for it."""
        if self.request.model == model:
            return self.request
        return structs.replace(self.request, model=model)

    def call_to(self, agent: Agent, request: GenerationRequest) -> GenerateTokens:
        """What the agent is told so that it begins, or goes on."""
        left_s = self.left_s
        return generate_tokens_call(
            agent.addressed(request),
            created=self._created,
            deadline_ms=None if left_s is None else max(0, round(left_s * 1000)),
            trace_id=self.request_id,
            cache_scope=self.cache_scope,
            prefix_chain=self.prefix_chain,
            resume=self.so_far.resume(),
        )

    def note(self, outcome: str) -> None:
        """What became of the latest choice of an agent."""
        self.route.end(outcome, after_ms=self.times.age_ms)

    def outcome(self, finished: Finished, agent: Agent) -> Outcome:
        """How it ended, well, on this agent."""
        self.times.finished()
        return Outcome(
            finish_reason=finished.finish_reason,
            stop_sequence=finished.stop_sequence,
            usage=finished.usage,
            timings=finished.timings,
            agent=agent.name,
            attempts=self.attempts,
            queue_ms=self.times.queue_ms(is_waiting=False),
            ttft_ms=self.times.ttft_ms,
            total_ms=self.times.age_ms,
        )

    def snapshot(
        self, *, position: int | None = None, estimated_start_s: int | None = None
    ) -> RequestSnapshot:
        """The request as operators see it."""
        agent = self.agent
        return RequestSnapshot(
            id=self.request_id,
            choice=self.choice,
            model=self.model,
            tenant=self.tenant,
            state=self.state,
            agent=None if agent is None else agent.name,
            attempts=self.attempts,
            age_ms=round(self.times.age_ms, 3),
            completion_tokens=len(self.so_far.token_ids),
            position=position,
            estimated_start_s=estimated_start_s,
        )
