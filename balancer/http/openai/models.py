"""GET /v1/models, and one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp.web import StreamResponse

from balancer.errors import ModelNotFound
from balancer.fleet.agent import Agent
from balancer.http.answers import value_answer
from balancer.http.exchange import Exchange, Wiring
from protocol.models import ServedModel


async def list_models(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """The models that agents serve now, by their first names, then their aliases; then what their
    adapters make of them."""
    rows = []
    served = wiring.roster.served_models()
    own = {name for model in served for name in model.names}
    for model in served:
        agents = wiring.roster.candidates(model.name)
        for name in model.names:
            rows.append(_row(name, model, agents, created=wiring.started))
        for name, adapted in _adapted(model.name, agents).items():
            if name not in own:
                serving = wiring.roster.candidates(name)
                rows.append(_row(name, adapted, serving, created=wiring.started))
    return value_answer(exchange, {"object": "list", "data": rows})


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


def _adapted(model_name: str, agents: Sequence[Agent]) -> dict[str, ServedModel]:
    """Under the first name alone: with all aliases there would be as many rows as names times
    adapters."""
    models = [agent.model for agent in agents if agent.model is not None]
    adapted = {
        name: model
        for model in models
        for name, adapter in model.adapter_names().items()
        if name == f"{model_name}:{adapter}"
    }
    return dict(sorted(adapted.items()))


def _row(name: str, model: ServedModel, agents: Any, *, created: int) -> dict[str, Any]:
    is_adapted = name in model.adapter_names()
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "paddler",
        **({"parent": model.name} if is_adapted else {}),
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
            "embeddings": model.embedding_dimensions > 0 and not is_adapted,
            "vision": "vision" in model.modalities,
            "audio": "audio" in model.modalities,
        },
    }


def _status_of(agents: Sequence[Agent]) -> str:
    """Healthy: somebody could take a request; degraded: everybody has issues or no slot at all."""
    able = [agent for agent in agents if agent.slots_total or agent.queries_total]
    if any(not agent.is_draining and not agent.issues for agent in able):
        return "healthy"
    return "degraded" if able else "unhealthy"
