"""Rows of the management API: agents, models and requests as lists and live sockets show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import msgspec

from balancer.dispatch.journal import Route
from balancer.dispatch.listing import RequestSnapshot
from balancer.fleet.agent import Agent
from balancer.fleet.roster import Roster
from balancer.fleet.snapshot import AgentSnapshot
from balancer.http.listed_models import listed_models, model_fields
from protocol.models import ServedModel


class Lister(Protocol):
    """Who knows of requests."""

    def requests(self) -> list[RequestSnapshot]: ...


def requests_of(listers: Iterable[Lister]) -> list[RequestSnapshot]:
    """What each of them has, in their order."""
    return [row for lister in listers for row in lister.requests()]


def finished_row(route: Route) -> dict[str, Any]:
    """A generation that is over."""
    decision = route.decisions[-1] if route.decisions else None
    return {
        "id": route.request_id,
        "choice": route.choice,
        "model": None if decision is None else decision.model,
        "tenant": route.tenant,
        "agent": None if decision is None else decision.chosen,
        "outcome": route.outcome,
        "attempts": sum(one.chosen is not None for one in route.decisions) + route.dropped,
        "arrived": route.arrived,
        "total_ms": route.ended_after_ms,
        "prompt_tokens": route.prompt_tokens,
        "completion_tokens": route.completion_tokens,
    }


def agent_row(agent: AgentSnapshot) -> dict[str, Any]:
    """An agent."""
    row: dict[str, Any] = msgspec.to_builtins(agent)
    return {**row, "slots_total": agent.slots.total, "slots_used": agent.slots.used}


def model_rows(roster: Roster, *, created: int) -> list[dict[str, Any]]:
    """Every model under each of its names."""
    return [
        model_row(name, model, roster.candidates(name), created=created)
        for name, model in listed_models(roster)
    ]


def model_row(
    name: str, model: ServedModel, agents: Sequence[Agent], *, created: int
) -> dict[str, Any]:
    """What OpenAI's list has of it, and what operators want to know besides."""
    return {
        **model_fields(name, model, agents, created=created),
        "aliases": list(model.aliases),
        "architecture": model.architecture,
        "quantization": model.quantization or None,
        "parameters": model.parameters or None,
        "size_bytes": model.size_bytes or None,
        "trained_context": model.trained_context_tokens or None,
        "modalities": list(model.modalities),
        "adapters": list(model.adapters),
        "embedding_dimensions": model.embedding_dimensions or None,
        "agents": [agent.name for agent in agents],
        "slots_total": sum(agent.slots_total for agent in agents),
        "slots_used": sum(agent.slots_used for agent in agents),
    }
