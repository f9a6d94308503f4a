"""The models that lists show, whichever family of APIs asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from balancer.errors import Forbidden
from balancer.fleet.agent import Agent
from balancer.fleet.roster import Roster
from balancer.http.iso_time import iso_time
from balancer.policy.identity.principal import Principal, may_use
from protocol.models import ServedModel


def models_for(principal: Principal, roster: Roster) -> Iterator[tuple[str, ServedModel]]:
    """Of `listed_models` those that a caller may use."""
    return (row for row in listed_models(roster) if may_use(principal, row[0]))


def listed_models(roster: Roster) -> Iterator[tuple[str, ServedModel]]:
    """The models that agents serve now, by their first names, then their aliases; then what their
    adapters make of them."""
    served = roster.served_models()
    own = {name for model in served for name in model.names}
    for model in served:
        for name in model.names:
            yield name, model
        for name, adapted in _adapted(model.name, roster.candidates(model.name)).items():
            if name not in own:
                yield name, adapted


def check_listed(name: str, principal: Principal) -> None:
    """Raises `Forbidden` for a model that a key is not for, whether or not there is one."""
    if not may_use(principal, name):
        raise Forbidden(
            f"this key may not use the model {name[:200]!r}; lists of models have those that it "
            "may",
            code="model_not_allowed",
            param="model",
            details={"model": name[:200]},
        )


def is_adapted(name: str, model: ServedModel) -> bool:
    """Whether this is the model with an adapter."""
    return name in model.adapter_names()


def model_fields(
    name: str, model: ServedModel, agents: Sequence[Agent], *, created: int
) -> dict[str, Any]:
    """A row of OpenAI's list, with what older clients read beside it."""
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


def _status_of(agents: Sequence[Agent]) -> str:
    """Healthy: somebody could take a request; degraded: everybody has issues or no slot at all."""
    able = [agent for agent in agents if agent.slots_total or agent.queries_total]
    if any(not agent.is_draining and not agent.issues for agent in able):
        return "healthy"
    return "degraded" if able else "unhealthy"
