"""The canary test: does one tenant find anything of what another one has just said?

The first tenant sends a text that nobody ever sent, twice: the second time most of it has to come
from the cache, else there was nothing to find. Then the other tenant sends a canary of its own,
which nobody has cached, and the first one's. Where that has more of its tokens cached than the
unknown one, the tenants share a cache; where an answer has the first one's words in it, they
share more.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Any, Literal, Protocol

from msgspec import Struct

from balancer.terminal.doctor.client import Said

Outcome = Literal["apart", "shared", "unknown"]

MOST_ROUNDS = 8
"""Where several agents serve, the other tenant's request may go to one that never saw the canary:
then the round says nothing."""
_SECRETS, _WORDS = 8, 200
"""Of a canary: words that nobody else ever writes, and usual ones behind them, so that it is more
than the balancer's prefix blocks and not too many tokens."""
_USUAL = (
    "apple", "away", "blue", "bread", "came", "cold", "day", "door", "earth", "field", "fire",
    "good", "green", "hand", "house", "large", "light", "morning", "night", "people", "river",
    "road", "sea", "small", "snow", "stone", "summer", "tree", "water", "wind", "winter", "year",
)  # fmt: skip
_ANSWER_TOKENS = 16
_LEAST_CACHED = 16
"""Fewer tokens than this are the model's own beginning."""
_MOST_PAUSES = 3
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 30.0


class Asks(Protocol):
    """A tenant: `client.Client` with its key."""

    async def post(self, path: str, body: dict[str, Any]) -> Said: ...


class Seen(Struct, frozen=True, kw_only=True):
    """What a request shows of the cache."""

    prompt_tokens: int
    cached_tokens: int
    first_token_ms: float
    text: str
    agent: str


class Canary(Struct, frozen=True, kw_only=True):
    """What came out. `unknown`: nothing could be learnt, and `why` says why not."""

    outcome: Outcome
    why: str = ""
    rounds: int = 0
    own_again: Seen | None = None
    unknown_text: Seen | None = None
    others_text: Seen | None = None


class CannotAsk(Exception):
    """A request was refused; the text says why."""


async def canary_test(first: Asks, other: Asks, *, model: str | None = None) -> Canary:
    """Ask until one round says something. Raises `CannotAsk` and what the tenants raise."""
    found = Canary(outcome="unknown")
    for number in range(1, MOST_ROUNDS + 1):
        found = await _round(first, other, model=model, number=number)
        if found.outcome != "unknown":
            break
    return found


async def _round(first: Asks, other: Asks, *, model: str | None, number: int) -> Canary:
    canary = _text()
    began = await _seen(first, canary, model)
    own = await _seen(first, canary, model)
    if own.cached_tokens - began.cached_tokens < _LEAST_CACHED or own.agent != began.agent:
        why = "what a tenant has just sent is not cached for itself either"
        return Canary(outcome="unknown", why=why, rounds=number, own_again=own)
    unknown = await _seen(other, _text(), model)
    found = await _seen(other, canary, model)
    more = found.cached_tokens - unknown.cached_tokens
    facts: dict[str, Any] = {
        "rounds": number,
        "own_again": own,
        "unknown_text": unknown,
        "others_text": found,
    }
    if set(canary.split()[:_SECRETS]) & set(unknown.text.split()):
        return Canary(outcome="shared", why="the first tenant's words are in an answer", **facts)
    if more >= _LEAST_CACHED:
        why = f"{found.cached_tokens} tokens of the first tenant's text were cached for the other"
        return Canary(outcome="shared", why=why, **facts)
    if found.agent != own.agent:
        why = "the tenants were served by different agents each time"
        return Canary(outcome="unknown", why=why, **facts)
    return Canary(outcome="apart", **facts)


def _text() -> str:
    """Words that nobody ever sent."""
    unique = (secrets.token_hex(4) for _ in range(_SECRETS))
    usual = (secrets.choice(_USUAL) for _ in range(_WORDS))
    return " ".join((*unique, *usual))


async def _seen(asks: Asks, prompt: str, model: str | None) -> Seen:
    body: dict[str, Any] = {"prompt": prompt, "max_tokens": _ANSWER_TOKENS, "temperature": 0}
    if model is not None:
        body["model"] = model
    said = await _answered(asks, body)
    usage, performance = said.body["usage"], said.body["performance"]
    return Seen(
        prompt_tokens=usage["prompt_tokens"],
        cached_tokens=usage["prompt_tokens_details"]["cached_tokens"],
        first_token_ms=performance["time_to_first_token_ms"],
        text=said.body["choices"][0]["text"],
        agent=said.body["_proxy_info"]["provider"],
    )


async def _answered(asks: Asks, body: dict[str, Any]) -> Said:
    """The answer; where a limit is in the way, once there is room again."""
    for _ in range(_MOST_PAUSES):
        said = await asks.post("/v1/completions", body)
        if said.status != 429:
            break
        await asyncio.sleep(min(max(said.retry_after_s, _SHORTEST_PAUSE_S), _LONGEST_PAUSE_S))
    if not said.is_well:
        raise CannotAsk(said.reason)
    return said
