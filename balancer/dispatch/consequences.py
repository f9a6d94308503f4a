"""What an agent's refusal or failure means to the client: the protocol's table, as our errors."""

from __future__ import annotations

from balancer.errors import (
    AgentLost,
    BalancerError,
    InvalidRequest,
    LimitExceeded,
    ModelUnavailable,
    UpstreamFailed,
)
from balancer.policy.failover import Breakage
from protocol.jsonrpc import ErrorObject
from protocol.refusals import RefusalCode, consequence_of

_PARAMS: dict[int, str] = {
    RefusalCode.CONTEXT_TOO_LONG: "messages",
    RefusalCode.INVALID_TEMPLATE: "messages",
    RefusalCode.INVALID_GRAMMAR: "grammar",
}
_SHOWN_CHARS = 2000


def error_for(error: ErrorObject, *, agent: str, retry_after_s: int) -> BalancerError:
    """The client's error. Its text is the agent's where the client is to blame; its details are
    the agent's facts, a `param` among them names the parameter. `retry_after_s` is used where
    trying again is of use."""
    row = consequence_of(error.code)
    facts = dict(error.data) if isinstance(error.data, dict) else {}
    message = error.message[:_SHOWN_CHARS]
    param = facts.pop("param", None)
    if not isinstance(param, str):
        param = _PARAMS.get(error.code)
    match row.status:
        case 400:
            return InvalidRequest(message, code=row.client_code, param=param, details=facts)
        case 429:
            return LimitExceeded(
                message,
                code=row.client_code,
                param=param,
                details=facts,
                retry_after_s=retry_after_s,
            )
        case 503:
            return ModelUnavailable(
                message, code=row.client_code, details=facts, retry_after_s=retry_after_s
            )
        case _:
            return UpstreamFailed(
                f"the agent {agent!r} failed the request ({row.name}: {message}); "
                "send it again, and look at the agent's log if it happens again",
                details={**facts, "agent": agent, "reason": row.name},
            )


def judged(
    error: ErrorObject, *, agent: str, retry_after_s: int
) -> tuple[Breakage | None, BalancerError]:
    """How a request broke off there, and what its client is told if it goes on nowhere; None: the
    client is to blame."""
    shown = error_for(error, agent=agent, retry_after_s=retry_after_s)
    if consequence_of(error.code).blame != "agent":
        return None, shown
    return ("engine_died" if _is_engines_death(error) else "failed"), shown


def _is_engines_death(error: ErrorObject) -> bool:
    """Whether a call ended with its engine, not by itself."""
    facts = error.data if isinstance(error.data, dict) else {}
    return error.code == RefusalCode.ENGINE_FAILED and "signal" in facts


def ended_by(agent: str) -> BalancerError:
    """The agent cancelled it, unasked."""
    error = ErrorObject(code=int(RefusalCode.CANCELLED), message="the agent cancelled it")
    return error_for(error, agent=agent, retry_after_s=0)


def agent_lost(agent: str, *, completion_tokens: int) -> BalancerError:
    """The agent's link ended in the middle of it."""
    return AgentLost(
        f"the connection to the agent {agent!r} ended during the generation; "
        "send the request again",
        details={"agent": agent, "completion_tokens": completion_tokens},
    )


def garbled(agent: str) -> BalancerError:
    """What an agent says of it cannot be read, again and again."""
    return UpstreamFailed(
        f"messages of the agent {agent!r} cannot be read; send the request again, and look whether "
        "agent and balancer are of the same version",
        details={"agent": agent, "reason": "garbled"},
    )


def incomplete(agent: str, lost: int) -> BalancerError:
    """A message was dropped on the way: an answer with a hole in it must not look whole."""
    return UpstreamFailed(
        f"{lost} tokens of the agent {agent!r} did not arrive; send the request again",
        details={"agent": agent, "reason": "tokens_lost", "lost": lost},
    )
