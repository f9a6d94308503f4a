"""GET /v1/models, and one of them: rows that OpenAI's clients can read and Anthropic's too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp.web import StreamResponse

from balancer.errors import ModelNotFound
from balancer.fleet.agent import Agent
from balancer.http.answers import value_answer
from balancer.http.exchange import Exchange, Wiring
from balancer.http.iso_time import iso_time
from balancer.http.listed_models import is_adapted, listed_models
from protocol.models import ServedModel


async def list_models(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """Those that agents serve now, with what adapters make of them."""
    roster = wiring.roster
    rows = [
        _row(name, model, roster.candidates(name), created=wiring.started)
        for name, model in listed_models(roster)
    ]
    return value_answer(exchange, {"object": "list", "data": rows, **_page_of(rows)})


async def show_model(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """One of them, by any name that a request may call it by. Raises `ModelNotFound`."""
    name = exchange.places["id"]
    agents = wiring.roster.candidates(name)
    model = next((agent.model for agent in agents if agent.model is not None), None)
    if model is None:
        raise ModelNotFound(
            f"there is no model {name[:200]!r} here; GET /v1/models lists those that are",
            param="model",
            details={"model": name[:200]},
        )
    return value_answer(exchange, _row(name, model, agents, created=wiring.started))


def _row(name: str, model: ServedModel, agents: Any, *, created: int) -> dict[str, Any]:
    has_adapter = is_adapted(name, model)
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "paddler",
        **({"parent": model.name} if has_adapter else {}),
        "type": "model",
        "display_name": name,
        "created_at": iso_time(created),
        "lifecycle": "active",
        "max_input_tokens": model.context_tokens,
        "provider_type": "agent",
        "status": _status_of(agents),
        "enabled": True,
        "forced": False,
        "context_window": model.context_tokens,
        "version": model.version,
        "description": model.description,
        "capabilities": {
            "chat": model.generates and model.has_chat_template,
            "completions": model.generates,
            "embeddings": model.embedding_dimensions > 0 and not has_adapter,
            "vision": "vision" in model.modalities,
            "audio": "audio" in model.modalities,
        },
    }


def _page_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Anthropic lists in pages; this is the only one."""
    ends = (rows[0]["id"], rows[-1]["id"]) if rows else (None, None)
    return {"first_id": ends[0], "last_id": ends[1], "has_more": False}


def _status_of(agents: Sequence[Agent]) -> str:
    """Healthy: somebody could take a request; degraded: everybody has issues or no slot at all."""
    able = [agent for agent in agents if agent.slots_total or agent.queries_total]
    if any(not agent.is_draining and not agent.issues for agent in able):
        return "healthy"
    return "degraded" if able else "unhealthy"
