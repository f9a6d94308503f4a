"""The models that lists show, whichever family of APIs asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from balancer.fleet.agent import Agent
from balancer.fleet.roster import Roster
from protocol.models import ServedModel


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


def is_adapted(name: str, model: ServedModel) -> bool:
    """Whether this is the model with an adapter."""
    return name in model.adapter_names()


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
