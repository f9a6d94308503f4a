"""A route as what the client waited for: a slot, its prompt, its tokens, and moves. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from balancer.dispatch.journal import Decision, Route

PhaseName = Literal["waited", "prefilled", "decoded", "moved"]


class Phase(Struct, frozen=True, kw_only=True):
    """One stretch, in milliseconds since the request's arrival. `reason` is why a move began;
    `end_ms` is null while it lasts."""

    phase: PhaseName
    start_ms: float
    end_ms: float | None
    agent: str | None = None
    reason: str | None = None


class Totals(Struct, frozen=True, kw_only=True):
    """Milliseconds of each kind of stretch."""

    waited: float
    prefilled: float
    decoded: float
    moved: float


class Timeline(Struct, frozen=True, kw_only=True):
    """One generation. `arrived` is in unix seconds; what is null is not over."""

    request_id: str
    choice: int
    arrived: float
    agent: str | None
    outcome: str | None
    prompt_tokens: int
    completion_tokens: int
    total_ms: float | None
    totals_ms: Totals
    phases: tuple[Phase, ...]


def timeline(route: Route, *, age_ms: float) -> Timeline:
    """The story of a route; `age_ms` is the request's, where it is not over."""
    phases = tuple(_phases(route))
    until_ms = age_ms if route.ended_after_ms is None else route.ended_after_ms
    sums: dict[str, float] = {"waited": 0.0, "prefilled": 0.0, "decoded": 0.0, "moved": 0.0}
    for phase in phases:
        end_ms = until_ms if phase.end_ms is None else phase.end_ms
        sums[phase.phase] += max(end_ms - phase.start_ms, 0.0)
    sums = {name: round(value, 3) for name, value in sums.items()}
    starts = _starts(route)
    return Timeline(
        request_id=route.request_id,
        choice=route.choice,
        arrived=route.arrived,
        agent=starts[-1].chosen if starts else None,
        outcome=route.outcome or None,
        prompt_tokens=route.prompt_tokens,
        completion_tokens=route.completion_tokens,
        total_ms=route.ended_after_ms,
        totals_ms=Totals(**sums),
        phases=phases,
    )


def _starts(route: Route) -> list[Decision]:
    """The choices that led to a call, and not to a refusal for want of room or to waiting on."""
    return [
        one
        for one in route.decisions
        if one.chosen is not None and not one.outcome.startswith("refused")
    ]


def _phases(route: Route) -> Iterator[Phase]:
    waits_from_ms, reason = 0.0, None
    for start in _starts(route):
        yield _waiting(waits_from_ms, start.after_ms, reason)
        yield from _work(start, route.ended_after_ms)
        ended_ms = start.outcome_after_ms
        if ended_ms is None or start.outcome == "finished":
            return
        waits_from_ms, reason = ended_ms, start.outcome
    yield _waiting(waits_from_ms, route.ended_after_ms, reason)


def _waiting(start_ms: float, end_ms: float | None, reason: str | None) -> Phase:
    """For a slot, or, once something broke off, for the next one."""
    phase: PhaseName = "waited" if reason is None else "moved"
    return Phase(phase=phase, start_ms=start_ms, end_ms=end_ms, reason=reason)


def _work(start: Decision, ended_ms: float | None) -> Iterator[Phase]:
    end_ms = ended_ms if start.outcome_after_ms is None else start.outcome_after_ms
    first_ms = start.first_token_after_ms
    yield Phase(
        phase="prefilled",
        start_ms=start.after_ms,
        end_ms=end_ms if first_ms is None else first_ms,
        agent=start.chosen,
    )
    if first_ms is not None:
        yield Phase(phase="decoded", start_ms=first_ms, end_ms=end_ms, agent=start.chosen)
