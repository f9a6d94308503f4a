"""Whether a generation that broke off goes on elsewhere, and who pays for it. Pure.

What is nobody's doing, a killed host or a lost link, an engine's death, a drain, costs the request
nothing: it goes on as often as that happens. What a living agent reports as its failure is counted,
for the request and for all of them together (`RetryBudget`), so that a fleet in trouble is not
asked for everything five times over. A request under which engines die is stopped before it
has taken all of them down.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

from msgspec import Struct

Breakage = Literal["link_lost", "engine_died", "stalled", "drained", "garbled", "failed"]
"""`failed`: a living agent refused or failed the call, and says that it is not the client's fault.
`stalled`: it made no progress, and was taken away from its agent. `garbled`: a message of its
agent, maybe with tokens of it, could not be read."""
Verdict = Literal["elsewhere", "poison", "nowhere", "moves_spent", "budget_spent", "stalls_spent"]

MOST_FAILURES = 5
"""Moves of one request after failures that living agents reported."""
MOST_GARBLED = 5
"""Messages about one request that may be unreadable. One of them can be about many requests, so
the budget of all does not pay."""
MOST_STALLS = 3
"""Agents that may stand still over one request."""
POISON_DEATHS = 2
"""Engines that may die before they gave this request a token."""
BUDGET_SHARE = 0.2
"""Of the recent requests, so many may be tried again after failures, and `BUDGET_FLOOR` more."""
BUDGET_FLOOR = 10
BUDGET_WINDOW_S = 30.0


class Trail(Struct, kw_only=True):
    """What a request has been through."""

    failures: int = 0
    deaths_before_output: int = 0
    stalls: int = 0
    garbled: int = 0
    moves: int = 0
    """All of them, whoever paid."""

    def note(self, breakage: Breakage, *, had_output: bool) -> None:
        """It broke off; `had_output`: this agent had given it a token."""
        self.moves += 1
        if breakage == "failed":
            self.failures += 1
        if breakage == "stalled":
            self.stalls += 1
        if breakage == "garbled":
            self.garbled += 1
        if breakage == "engine_died" and not had_output:
            self.deaths_before_output += 1


def is_charged(breakage: Breakage) -> bool:
    """Whether going on costs a part of the budget."""
    return breakage == "failed"


def verdict(breakage: Breakage, trail: Trail, *, has_budget: bool, has_others: bool) -> Verdict:
    """What becomes of a request that broke off, the breakage being in its trail already.

    `has_others`: agents that could take it and have not failed it. Without them a failure is
    told at once; what was nobody's doing waits, for its own agent's return if need be.
    """
    if trail.deaths_before_output >= POISON_DEATHS:
        return "poison"
    if trail.stalls > MOST_STALLS:
        return "stalls_spent"
    if trail.garbled > MOST_GARBLED:
        return "moves_spent"
    if not is_charged(breakage):
        return "elsewhere"
    if not has_others:
        return "nowhere"
    if trail.failures > MOST_FAILURES:
        return "moves_spent"
    return "elsewhere" if has_budget else "budget_spent"


class RetryBudget:
    """Requests and charged moves of the last half minute, by the second."""

    def __init__(self) -> None:
        self._seconds: deque[list[int]] = deque()
        """Second, requests, retries."""
        self._requests = 0
        self._retries = 0

    def has_room(self, now: float) -> bool:
        """Whether one more move may be charged."""
        self._forget(now)
        return self._retries < BUDGET_SHARE * self._requests + BUDGET_FLOOR

    def note_request(self, now: float) -> None:
        """A request came."""
        self._at(now)[1] += 1
        self._requests += 1

    def note_retry(self, now: float) -> None:
        """A charged move was made."""
        self._at(now)[2] += 1
        self._retries += 1

    def _at(self, now: float) -> list[int]:
        self._forget(now)
        second = int(now)
        if not self._seconds or self._seconds[-1][0] < second:
            self._seconds.append([second, 0, 0])
        return self._seconds[-1]

    def _forget(self, now: float) -> None:
        while self._seconds and self._seconds[0][0] <= now - BUDGET_WINDOW_S:
            _, requests, retries = self._seconds.popleft()
            self._requests -= requests
            self._retries -= retries
