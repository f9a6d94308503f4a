"""Puts a handler's question to an agent; whoever reads the log or the answer sees who gave it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from msgspec import Struct

from balancer.dispatch.inquiry import Answered
from balancer.errors import InvalidRequest
from balancer.fleet.queries import TextAnswer, TextQuestion
from balancer.http.exchange import Exchange, Wiring
from balancer.http.sanitising import sanitised_question
from protocol.invariants import instance_of

_Kind = TypeVar("_Kind", bound=TextAnswer)


class Asked(Struct, frozen=True, kw_only=True):
    """What every answer to a question has beside it."""

    model: str
    headers: dict[str, str]


async def ask(
    exchange: Exchange,
    wiring: Wiring,
    question: TextQuestion,
    kind: type[_Kind],
    *,
    body_bytes: int,
    names: Mapping[str, str] | None = None,
    on_left: Callable[[], None] = lambda: None,
) -> tuple[_Kind, Asked]:
    """The answer, of the kind that belongs to the question. Raises `BalancerError`; `names` has, by
    an agent's names of parameters, those that the client knows them by; `on_left` as `Asker.ask`
    has it."""
    if rules := wiring.settings.sanitise:
        question = await sanitised_question(question, rules)
    try:
        answered = await wiring.asker.ask(
            question,
            exchange.principal,
            request_id=exchange.id,
            body_bytes=body_bytes,
            on_left=on_left,
        )
    except InvalidRequest as error:
        _rename(error, names or {})
        raise
    answer = instance_of(answered.answer, kind)
    exchange.facts.update(
        agent=answered.agent, attempts=answered.attempts, queue_ms=round(answered.queue_ms, 3)
    )
    return answer, Asked(model=answered.model, headers=_headers(answered))


def _headers(answered: Answered) -> dict[str, str]:
    return {
        "X-Paddler-Agent": answered.agent,
        "X-Paddler-Queue-Ms": f"{answered.queue_ms:.3f}",
        "X-Paddler-Attempts": str(answered.attempts),
    }


def _rename(error: InvalidRequest, names: Mapping[str, str]) -> None:
    """An agent knows nothing of the client's names."""
    theirs = names.get(error.param or "")
    if theirs is not None:
        error.message = error.message.replace(f"`{error.param}`", f"`{theirs}`")
        error.param = theirs
