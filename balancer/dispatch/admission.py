"""Whether a generation is taken in, and what its client is told where it is not.

Only what needs no slot is decided here; the decisions read the roster and the waiting room and
change neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from balancer.dispatch.waiting_room import Ahead, HoldSeconds, Waiter
from balancer.errors import (
    AgentLost,
    BalancerError,
    DeadlineUnreachable,
    DrainingError,
    Forbidden,
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
from balancer.policy.eta import Outlook, Running, retry_after_s
from balancer.policy.failover import POISON_DEATHS, Verdict
from balancer.policy.holds import Held, Holds
from balancer.policy.identity.principal import Principal, may_use
from balancer.settings import LiveSettings
from protocol.models import ServedModel

ANY_MODEL = ""
"""What a request without `model` asks for: the only model that is served."""
_SHOWN_MODELS = 20


class Crew(Protocol):
    """What admission reads of an agent."""

    @property
    def name(self) -> str: ...

    @property
    def slots_total(self) -> int: ...


class Fleet(Protocol):
    """What admission reads of the roster."""

    @property
    def has_agents(self) -> bool: ...

    @property
    def had_agents(self) -> bool: ...

    def agents(self) -> Iterable[Crew]: ...

    def candidates(self, model: str) -> Iterable[Crew]: ...

    def served_models(self) -> list[ServedModel]: ...

    def is_remembered(self, model: str) -> bool: ...


class Queues(Protocol):
    """What admission reads of the waiting room."""

    def ahead_of(self, queue: str, tenant: str, hold_s: HoldSeconds) -> Ahead: ...

    def has_room(self, body_bytes: int, count: int = 1) -> bool: ...

    def has_room_for(self, tenant: str, count: int = 1) -> bool: ...


class Admission:
    """Answers for one dispatcher; remembers only how long calls hold slots, and since when."""

    def __init__(
        self, *, roster: Fleet, settings: LiveSettings, queues: Queues, now: Callable[[], float]
    ) -> None:
        self._roster = roster
        self._settings = settings
        self._queues = queues
        self._now = now
        self._running = Running()
        self._holds = Holds()

    def on_claimed(self, waiter: Waiter, agent: Crew, model: str) -> float:
        """A request has a slot of this agent; for how many seconds it should hold it."""
        hold_s = self._holds.seconds_of_one(
            model, waiter.length, waiter.body_bytes, calls=agent.slots_total
        )
        key = waiter.rank[1]
        self._running.begins(key, agent.name, hold_s=hold_s, now_s=self._now())
        return hold_s

    def on_released(
        self, waiter: Waiter, model: str, *, held_s: float, prompt_s: float, tokens: int
    ) -> None:
        """It has it no longer: held for `held_s` seconds, 0 if the agent refused it, of which
        `prompt_s` before the first of so many tokens."""
        share = self._running.ends(waiter.rank[1], now_s=self._now())
        if held_s > 0:
            held = Held(
                length=waiter.length,
                body_bytes=waiter.body_bytes,
                prompt_s=prompt_s,
                rest_s=held_s - prompt_s,
                tokens=tokens,
                share=share,
            )
            self._holds.note(model, held)

    def hold_s(self, model: str) -> HoldSeconds:
        """What tells how long requests for this model will hold slots, when all are taken."""
        agents = self._agents_of(model)
        slots = sum(agent.slots_total for agent in agents)
        return partial(self._holds.seconds, model, calls=slots / max(len(agents), 1))

    def resolved(self, model: str) -> str | None:
        """The name that an agent knows; None while a request without a name has to wait for it."""
        if model != ANY_MODEL:
            return model
        names = self._served_names()
        return names[0] if len(names) == 1 else None

    def reason_to_refuse(self, model: str, allowed: tuple[str, ...] = ()) -> BalancerError | None:
        """Why the request could never be served, however long it waited. `allowed`: the models
        that its caller may know of; none: all."""
        if model == ANY_MODEL:
            names = self._served_names()
            return ambiguous_model(names) if len(names) > 1 else None
        if not self._roster.had_agents or self._roster.is_remembered(model):
            return None
        names = [name for name in self._served_names() if not allowed or name in allowed]
        return ModelNotFound(
            f"there is no model {model!r} here; {_served_text(names)}",
            param="model",
            details={"model": model, "served": names[:_SHOWN_MODELS]},
        )

    def check_allowed(self, model: str, principal: Principal) -> None:
        """Raises `Forbidden` where a caller may not use the model. One that is not known yet may
        become any."""
        if not may_use(principal, self.resolved(model)):
            asked = f"may not use the model {model!r}" if model else "has to say which `model`"
            raise Forbidden(
                f"this key {asked}; it may use {', '.join(principal.models[:_SHOWN_MODELS])}",
                code="model_not_allowed",
                param="model",
                details={"model": model, "allowed": list(principal.models[:_SHOWN_MODELS])},
            )

    def reason_not_to_wait(
        self,
        model: str,
        tenant: str,
        body_bytes: int,
        *,
        left_s: float | None,
        newcomers: int = 1,
    ) -> BalancerError | None:
        """Why a request that finds no slot, or so many, are not let into the waiting room."""
        error = self._reason_not_to_wait(model, tenant, body_bytes, left_s, newcomers)
        if error is not None:
            error.retry_after_s = self.retry_after_s(model, tenant)
        return error

    def _reason_not_to_wait(
        self, model: str, tenant: str, body_bytes: int, left_s: float | None, newcomers: int
    ) -> BalancerError | None:
        if self._settings.current.queue_timeout_s > 0:
            if not self._queues.has_room(body_bytes, newcomers):
                return QueueFull("too many requests wait; send fewer at once")
            if not self._queues.has_room_for(tenant, newcomers):
                return QueueFull("too many requests of yours wait; send fewer at once")
            return self._unreachable(model, tenant, left_s)
        if not self._roster.has_agents:
            return NoAgents("no agent is connected; start one")
        if self._slots_of(model) == 0:
            return ModelUnavailable("no agent can serve the model now")
        return QueueFull(
            "every slot is taken, and waiting is switched off (`queue_timeout_s` is 0)"
        )

    def _unreachable(self, model: str, tenant: str, left_s: float | None) -> BalancerError | None:
        """Why a request with so much time left need not wait: nobody would begin it in time."""
        if left_s is None or not self._holds.is_measured(model) or self._slots_of(model) == 0:
            return None
        ahead = self._ahead(model, tenant)
        expected_s = self.outlook(model).start_s(ahead.work_s)
        if expected_s <= left_s:
            return None
        return DeadlineUnreachable(
            late_text(ahead.requests, expected_s=expected_s, left_s=left_s),
            param="timeout",
            details={"estimated_start_s": round(expected_s, 3)},
        )

    def queue_timeout(self, model: str) -> BalancerError:
        """The request waited for as long as it may."""
        waited_s = self._settings.current.queue_timeout_s
        if self._slots_of(model) == 0:
            why = "no agent that serves the model came"
        else:
            why = "no slot became free for it"
        return QueueTimeout(
            f"the request waited for {waited_s:g} s and {why}; try again later, or add agents",
            details={"queue_timeout_s": waited_s},
            retry_after_s=self.retry_after_s(model),
        )

    def generation_timeout(
        self, model: str, timeout_s: float | None, *, has_begun: bool
    ) -> BalancerError:
        """The whole generation took longer than the request's own `timeout`, or never began."""
        limit = f"its `timeout` of {timeout_s or 0:g} s"
        return GenerationTimeout(
            f"the generation was not over after {limit}; allow it more time or ask for fewer tokens"
            if has_begun
            else f"the request waited for {limit} and {self._why_it_waited(model)}; allow it more "
            "time, try again later, or add agents",
            param="timeout",
            retry_after_s=self.retry_after_s(model),
        )

    def _why_it_waited(self, model: str) -> str:
        resolved = self.resolved(model)
        name = "any model" if resolved is None else f"the model {resolved!r}"
        if self._slots_of(model) == 0:
            return f"no agent could take requests for {name}"
        return f"no slot for {name} became free"

    def stalled(self, agent: str, *, waited_s: float | None = None) -> BalancerError:
        """A call made no progress for so long; without it, for as long as a generation may."""
        if waited_s is None:
            waited_s = self._settings.current.progress_timeout_s
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
        return retry_after_s(self.start_s(model, tenant))

    def start_s(self, model: str, tenant: str) -> float:
        """When it should, as it is estimated."""
        return self.outlook(model).start_s(self._ahead(model, tenant).work_s)

    def outlook(self, model: str) -> Outlook:
        """When slots for this model should become free."""
        agents = self._agents_of(model)
        return self._running.outlook(
            slots=sum(agent.slots_total for agent in agents),
            agents=[agent.name for agent in agents],
            now_s=self._now(),
        )

    def _ahead(self, model: str, tenant: str) -> Ahead:
        return self._queues.ahead_of(model, tenant, self.hold_s(model))

    def cancelled(self) -> BalancerError:
        """An operator ended the request."""
        return RequestCancelled("an operator cancelled this request")

    def _slots_of(self, model: str) -> int:
        return sum(agent.slots_total for agent in self._agents_of(model))

    def _agents_of(self, model: str) -> list[Crew]:
        if model == ANY_MODEL:
            return list(self._roster.agents())
        return list(self._roster.candidates(model))

    def _served_names(self) -> list[str]:
        served = self._roster.served_models()
        return [name for model in served for name in (model.name, *model.aliases)]


def late_text(requests: int, *, expected_s: float, left_s: float) -> str:
    """Why a request with so many others before it would begin too late, and what to do."""
    limit = f"past its `timeout` of {round(left_s, 2):g} s; allow more time, or try again later"
    if requests == 0:
        return f"no slot should be free before {expected_s:.1f} s from now, {limit}"
    before = "1 request comes" if requests == 1 else f"{requests} requests come"
    return f"{before} before this one, so it would begin in {expected_s:.1f} s, {limit}"


def ambiguous_model(names: list[str]) -> BalancerError:
    """A request without `model`, and more than one model to choose from."""
    return InvalidRequest(
        f"the request names no `model`, and more than one is served; {_served_text(names)}",
        code="missing_required_parameter",
        param="model",
        details={"parameter": "model", "served": names[:_SHOWN_MODELS]},
    )


def only_generates(model: str, own_name: str) -> BalancerError:
    """Something else is asked of a model under an adapter than to generate."""
    return InvalidRequest(
        f"the model {model!r} only generates: adapters act on nothing else; ask {own_name!r}",
        param="model",
    )


def _served_text(names: list[str]) -> str:
    if not names:
        return "none is served at present"
    more = ", …" if len(names) > _SHOWN_MODELS else ""
    return "served are: " + ", ".join(names[:_SHOWN_MODELS]) + more
