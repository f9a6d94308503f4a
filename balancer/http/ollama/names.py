"""Models' names as Ollama's clients write them: with a tag, `latest` unless they say more."""

from __future__ import annotations

from balancer.errors import ModelNotFound, ModelUnavailable
from balancer.fleet.roster import Roster
from balancer.http.faults import missing
from protocol.models import ServedModel

TAG = ":latest"


def tagged(name: str) -> str:
    """How lists show a name: clients look for it with its tag."""
    return name if ":" in name else name + TAG


def served_name(given: str | None, roster: Roster) -> str:
    """The name that agents know; empty if none was given. The default tag is added or left out
    where the model is served so."""
    if not given or roster.is_remembered(given):
        return given or ""
    if given.endswith(TAG):
        return given.removesuffix(TAG)
    return tagged(given) if roster.is_remembered(tagged(given)) else given


def served_model(given: str | None, roster: Roster) -> ServedModel:
    """What an agent says of the model. Raises `InvalidRequest` without a name, `ModelNotFound` and
    `ModelUnavailable`."""
    if not given:
        raise missing("model")
    name = served_name(given, roster)
    for agent in roster.candidates(name):
        if agent.model is not None:
            return agent.model
    if roster.is_remembered(name):
        raise ModelUnavailable(
            f"no agent serves the model {given!r} at present; try again", retry_after_s=1
        )
    raise ModelNotFound(
        f"there is no model {given!r} here; GET /api/tags lists those that there are",
        param="model",
        details={"model": given},
    )
