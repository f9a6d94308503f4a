"""Whether a generation is taken in, and what its client is told where it is not.

Only what needs no slot is decided here; the decisions read the roster and the waiting room and
change neither.
"""

from __future__ import annotations

from typing import Protocol

from balancer.errors import (
    AgentLost,
    BalancerError,
    DeadlineUnreachable,
    DrainingError,
    GenerationTimeout,
    InvalidRequest,
    ModelNotFound,
    ModelUnavailable,
    NoAgents,
    QueueFull,
    QueueTimeout,
    RequestCancelled,
    UpstreamFailed,
)
from balancer.fleet.roster import Roster
from balancer.policy.eta import (
    UNMEASURED_SERVICE_S,
    retry_after_s,
    smoothed_service_s,
    wait_s,
)
from balancer.policy.failover import POISON_DEATHS, Verdict
from balancer.settings import Settings

ANY_MODEL = ""
"""What a request without `model` asks for: the only model that is served."""
_SHOWN_MODELS = 20


class Queues(Protocol):
    """What admission reads of the waiting room."""

    def ahead_of(self, queue: str, tenant: str) -> int: ...

    def has_room(self, body_bytes: int) -> bool: ...

    def has_room_for(self, tenant: str) -> bool: ...


class Admission:
    """Answers for one dispatcher; remembers only how long requests hold a slot."""

    def __init__(self, *, roster: Roster, settings: Settings, queues: Queues) -> None:
        self._roster = roster
        self._settings = settings
        self._queues = queues
        self._service_s: float | None = None

    def on_slot_held(self, seconds: float) -> None:
        """What estimates of waiting times are made from."""
        self._service_s = smoothed_service_s(self._service_s, seconds)

    @property
    def usual_service_s(self) -> float:
        """How long a request holds a slot, as far as is known."""
        return UNMEASURED_SERVICE_S if self._service_s is None else self._service_s

    def resolved(self, model: str) -> str | None:
        """The name that an agent knows; None while a request without a name has to wait for it."""
        if model != ANY_MODEL:
            return model
        names = self._served_names()
        return names[0] if len(names) == 1 else None

    def reason_to_refuse(self, model: str) -> BalancerError | None:
        """Why the request could never be served, however long it waited."""
        if model == ANY_MODEL:
            names = self._served_names()
            return ambiguous_model(names) if len(names) > 1 else None
        if not self._roster.had_agents or self._roster.is_remembered(model):
            return None
        return ModelNotFound(
            f"there is no model {model!r} here; {_served_text(self._served_names())}",
            param="model",
            details={"model": model, "served": self._served_names()[:_SHOWN_MODELS]},
        )

    def reason_not_to_wait(
        self, model: str, tenant: str, body_bytes: int, *, left_s: float | None
    ) -> BalancerError | None:
        """Why a request that finds no slot is not let into the waiting room."""
        retry_s = self.retry_after_s(model, tenant)
        if self._settings.queue_timeout_s > 0:
            if not self._queues.has_room(body_bytes):
                return QueueFull(
                    "too many requests wait; send fewer at once", retry_after_s=retry_s
                )
            if not self._queues.has_room_for(tenant):
                return QueueFull(
                    "too many requests of yours wait; send fewer at once", retry_after_s=retry_s
                )
            return self._unreachable(model, tenant, left_s)
        if not self._roster.has_agents:
            return NoAgents("no agent is connected; start one", retry_after_s=retry_s)
        if self._slots_of(model) == 0:
            return ModelUnavailable("no agent can serve the model now", retry_after_s=retry_s)
        return QueueFull(
            "every slot is taken, and waiting is switched off (`queue_timeout_s` is 0)",
            retry_after_s=retry_s,
        )

    def _unreachable(self, model: str, tenant: str, left_s: float | None) -> BalancerError | None:
        """Why a request with so much time left need not wait: nobody would begin it in time."""
        slots = self._slots_of(model)
        if left_s is None or self._service_s is None or slots == 0:
            return None
        ahead = self._queues.ahead_of(model, tenant)
        expected_s = wait_s(ahead=ahead, slots=slots, service_s=self._service_s)
        if expected_s <= left_s:
            return None
        return DeadlineUnreachable(
            f"{ahead} requests come before this one, so it would begin in {expected_s:.1f} s, past "
            f"its `timeout` of {left_s:g} s; allow more time, or try again later",
            details={"estimated_start_s": round(expected_s, 3)},
            retry_after_s=self.retry_after_s(model, tenant),
        )

    def queue_timeout(self, model: str) -> BalancerError:
        """The request waited for as long as it may."""
        waited_s = self._settings.queue_timeout_s
        if self._slots_of(model) == 0:
            why = "no agent that serves the model came"
        else:
            why = "no slot became free for it"
        return QueueTimeout(
            f"the request waited for {waited_s:g} s and {why}; try again later, or add agents",
            details={"queue_timeout_s": waited_s},
            retry_after_s=self.retry_after_s(model),
        )

    def generation_timeout(self, model: str, timeout_s: float | None) -> BalancerError:
        """The whole generation took longer than the request's own `timeout`."""
        return GenerationTimeout(
            f"the generation was not over after its `timeout` of {timeout_s} s; allow it more time "
            "or ask for fewer tokens",
            param="timeout",
            retry_after_s=self.retry_after_s(model),
        )

    def stalled(self, agent: str) -> BalancerError:
        """A call made no progress."""
        waited_s = self._settings.progress_timeout_s
        return UpstreamFailed(
            f"the agent {agent!r} made no progress with the request for {waited_s:g} s; "
            "send it again",
            details={"agent": agent, "reason": "stalled"},
        )

    def moved_off(self, agent: str) -> BalancerError:
        """The agent was taken out of service."""
        return AgentLost(
            f"the agent {agent!r} was drained, and no other can go on; send the request again",
            details={"agent": agent, "reason": "drained"},
        )

    def given_up(self, error: BalancerError, verdict: Verdict, model: str) -> BalancerError:
        """Why a generation that broke off does not go on."""
        if verdict == "poison":
            return UpstreamFailed(
                f"{POISON_DEATHS} engines ended while they worked on this request, so it is not "
                "tried again; look at the agents' logs before you send it once more",
                details={**error.details, "reason": "poison_request"},
            )
        if verdict == "stalls_spent":
            error.details["reason"] = "stalled"
        error.retry_after_s = self.retry_after_s(model)
        return error

    def draining(self) -> BalancerError:
        """The balancer is about to stop."""
        return DrainingError(
            "the balancer is stopping; send the request again when it is back",
            retry_after_s=self.retry_after_s(ANY_MODEL),
        )

    def retry_after_s(self, model: str, tenant: str = "") -> int:
        """When a request of this tenant for this model should find a slot, in whole seconds."""
        return retry_after_s(
            ahead=self._queues.ahead_of(model, tenant),
            slots=self._slots_of(model),
            service_s=self._service_s,
        )

    def start_s(self, model: str, position: int) -> int:
        """When the one at this position (from 1) should find a slot, in whole seconds."""
        return retry_after_s(
            ahead=position - 1, slots=self._slots_of(model), service_s=self._service_s
        )

    def cancelled(self) -> BalancerError:
        """An operator ended the request."""
        return RequestCancelled("an operator cancelled this request")

    def _slots_of(self, model: str) -> int:
        agents = self._roster.agents() if model == ANY_MODEL else self._roster.candidates(model)
        return sum(agent.slots_total for agent in agents)

    def _served_names(self) -> list[str]:
        served = self._roster.served_models()
        return [name for model in served for name in (model.name, *model.aliases)]


def ambiguous_model(names: list[str]) -> BalancerError:
    """A request without `model`, and more than one model to choose from."""
    return InvalidRequest(
        f"the request names no `model`, and more than one is served; {_served_text(names)}",
        code="missing_required_parameter",
        param="model",
        details={"parameter": "model", "served": names[:_SHOWN_MODELS]},
    )


def _served_text(names: list[str]) -> str:
    if not names:
        return "none is served at present"
    more = ", …" if len(names) > _SHOWN_MODELS else ""
    return "served are: " + ", ".join(names[:_SHOWN_MODELS]) + more
