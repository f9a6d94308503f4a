"""Why each request went where it went: kept for the latest ones, and written down if asked.

A decision is what was known when an agent was chosen; what became of it is added later. Of the
thousands that are kept none can be part of a cycle, so the collector is told to leave them alone.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from itertools import islice

from msgspec import Struct

from balancer.fleet.agent import Agent
from balancer.policy.routing.policy import Facts, matched_blocks

MOST_REQUESTS = 1000
MOST_ROUTES = 2000
"""Of all of them; a request has one for each of its choices."""
MOST_DECISIONS = 32
"""Of one request; the first ones and the latest are kept."""
SHOWN_CANDIDATES = 8


Record = Callable[["Route", bytes], None]


class Considered(Struct, frozen=True, gc=False):
    """An agent as it was when the choice was made; made by position, as there are many."""

    name: str
    slots_free: int
    slots_total: int
    matched_blocks: int
    block_ms: float
    service_ms: float


class Decision(Struct, kw_only=True, gc=False):
    """One choice. `outcome` is "" while the call runs."""

    after_ms: float
    """Since the request's arrival."""
    policy: str
    model: str
    blocks: int
    chosen: str | None
    candidates: tuple[Considered, ...]
    """The chosen one and a few others, of `candidates_total`."""
    candidates_total: int
    resumed_tokens: int = 0
    outcome: str = ""
    outcome_after_ms: float | None = None
    first_token_after_ms: float | None = None


class Route(Struct, kw_only=True):
    """Every agent that was chosen for one generation: `choice` is its index in the request."""

    request_id: str
    choice: int = 0
    tenant: str
    arrived_s: float = 0.0
    """Of the balancer's own clock."""
    arrived: float = 0.0
    """In unix seconds."""
    outcome: str = ""
    """How it ended: a finish reason, an error's code, or `cancelled`; "" while it goes on."""
    ended_after_ms: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    decisions: list[Decision] = []
    dropped: int = 0
    """Decisions that were not kept."""

    def add(self, decision: Decision) -> None:
        """One more; beyond the bound the last but oldest half goes first."""
        if len(self.decisions) >= MOST_DECISIONS:
            del self.decisions[MOST_DECISIONS // 2]
            self.dropped += 1
        self.decisions.append(decision)

    def first_token(self, *, after_ms: float) -> None:
        """The agent that was chosen last gave its first."""
        if self.decisions:
            self.decisions[-1].first_token_after_ms = round(after_ms, 3)

    def end(self, outcome: str, *, after_ms: float) -> None:
        """What became of the latest choice."""
        if self.decisions and not self.decisions[-1].outcome:
            self.decisions[-1].outcome = outcome
            self.decisions[-1].outcome_after_ms = round(after_ms, 3)


class Journal:
    """The latest routes by request id. `record` is given each route, and its request's packed
    prefix chain, when the request is over."""

    def __init__(self, record: Record | None = None) -> None:
        self._routes: OrderedDict[str, list[Route]] = OrderedDict()
        self._count = 0
        self._ended: deque[Route] = deque(maxlen=MOST_REQUESTS)
        self._record = record

    def open(
        self, request_id: str, tenant: str, *, now: float, arrived: float = 0.0, choice: int = 0
    ) -> Route:
        """The route of a new generation, that came at `now` of the balancer's clock, which is
        `arrived` in unix seconds; that of choice 0 begins a request."""
        route = Route(
            request_id=request_id, choice=choice, tenant=tenant, arrived_s=now, arrived=arrived
        )
        if choice == 0:
            self._count -= len(self._routes.pop(request_id, ()))
        self._routes.setdefault(request_id, []).append(route)
        self._count += 1
        while len(self._routes) > MOST_REQUESTS or self._count > MOST_ROUTES:
            _, oldest = self._routes.popitem(last=False)
            self._count -= len(oldest)
        return route

    def close(self, route: Route, chain: Callable[[], bytes], *, completion_tokens: int) -> None:
        """The request is over."""
        route.completion_tokens = completion_tokens
        self._ended.append(route)
        if self._record is not None:
            self._record(route, chain())

    def finished(self, most: int) -> list[Route]:
        """Those that are over and remembered, the last to end first; a route for each choice."""
        remembered = (one for one in reversed(self._ended) if one.request_id in self._routes)
        return list(islice(remembered, most))

    def routes(self, request_id: str) -> list[Route]:
        """Of each of its choices; empty: it is unknown, or too long ago."""
        return list(self._routes.get(request_id, ()))


def considered(
    agents: Sequence[Agent], chosen: Agent | None, facts: Facts
) -> tuple[Considered, ...]:
    """The chosen one first, then others in the roster's order."""
    shown = [chosen] if chosen is not None else []
    shown += [agent for agent in agents[:SHOWN_CANDIDATES] if agent is not chosen]
    matched = matched_blocks(shown, facts)
    return tuple(
        [
            Considered(
                agent.name,
                agent.slots_free,
                agent.slots_total,
                matched.get(agent.name, 0),
                agent.rates.block_ms,
                agent.rates.service_ms,
            )
            for agent in shown[:SHOWN_CANDIDATES]
        ]
    )
