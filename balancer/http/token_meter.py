"""Holds a generation's tokens to its caller's limits: reserves, corrects, settles.

The reservation is made from an estimate of the prompt and the hard cap on what is generated, at
most; where only the estimate is in the way, an agent is asked. An agent's exact count corrects it
before the first token; at the end, however it comes, it is settled to what was spent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from msgspec import structs

from balancer.cluster.bus import Entry, Reservation
from balancer.errors import BalancerError
from balancer.http.exchange import Exchange
from balancer.http.gate import Gate
from balancer.http.prompt_counter import PromptCounter
from balancer.http.shape import Generation
from balancer.policy.limits.amounts import Moment, Refusal
from balancer.policy.limits.estimate import (
    MOST_BY_DEFAULT,
    MOST_OVERESTIMATED,
    most_tokens,
    prompt_estimate,
    text_estimate,
)
from protocol.generation import GenerationRequest


async def metered(
    exchange: Exchange, generation: Generation, counter: PromptCounter
) -> TokenMeter | None:
    """A meter where the caller's tokens are limited; whoever asked for it calls `settle`. Raises
    `LimitExceeded`."""
    entry, gate = exchange.entry, exchange.gate
    if entry is None or gate is None or not entry.limits_tokens:
        return None
    request = generation.request
    prompts = [text_estimate(text) for text in generation.prompts] or [prompt_estimate(request)]
    at = gate.moment()
    found, most = await _reserved(entry, generation, prompts, at)
    if isinstance(found, Refusal) and _may_fit(entry, generation, prompts, at):
        exact = await counter.count(request, exchange.principal, request_id=exchange.id)
        if exact is not None:
            prompts, at = [exact], gate.moment()
            found, most = await _reserved(entry, generation, prompts, at)
    if isinstance(found, Refusal):
        raise gate.refused(found, at)
    return TokenMeter(
        found, gate, prompts=prompts, made_of_each=generation.made_of_each, most_tokens=most
    )


async def _reserved(
    entry: Entry, generation: Generation, prompts: list[int], at: Moment
) -> tuple[Reservation | Refusal, int]:
    """For prompts of so many tokens; and the most that each generation may have."""
    asked, made, prompt = generation.request.max_tokens, generation.made, sum(prompts)
    most = asked or _most_that_fit(entry.tokens_left(at), prompt, made)
    return await entry.reserve(prompt + most * made, at), most


def _may_fit(entry: Entry, generation: Generation, prompts: list[int], at: Moment) -> bool:
    """Whether one prompt's exact count could make the difference."""
    if generation.prompts:
        return False
    left, least = entry.tokens_left(at), sum(prompts) // MOST_OVERESTIMATED
    return (
        left is not None and left >= least + (generation.request.max_tokens or 1) * generation.made
    )


class TokenMeter:
    """Of one request. Satisfies `Meter`."""

    def __init__(
        self,
        reservation: Reservation,
        gate: Gate,
        *,
        prompts: list[int],
        made_of_each: int,
        most_tokens: int,
    ) -> None:
        """`prompts`: estimates of their tokens, as reserved."""
        self._reservation = reservation
        self._gate = gate
        self._prompts = prompts
        """Exact once an agent has counted."""
        self._of_each = made_of_each
        self._completions = [0] * (made_of_each * len(prompts))
        self._most_tokens = most_tokens
        """That each generation may have."""
        self._counted: set[int] = set()

    @property
    def spent(self) -> int:
        """So far: prompts that an agent has begun with, and what was generated."""
        return sum(self._prompts[prompt] for prompt in self._counted) + sum(self._completions)

    def capped(self, request: GenerationRequest) -> GenerationRequest:
        """The request with its hard cap."""
        if request.max_tokens is not None:
            return request
        return structs.replace(request, max_tokens=self._most_tokens)

    def prompt_counted(self, choice: int, tokens: int) -> BalancerError | None:
        """Correct what was reserved for this prompt."""
        prompt = choice // self._of_each
        if prompt in self._counted:
            return None
        more = tokens - self._prompts[prompt]
        if more > 0:
            at = self._gate.moment()
            refusal = self._reservation.extend(more, at)
            if refusal is not None:
                return self._gate.refused(refusal, at)
        else:
            self._reservation.shrink(-more)
        self._counted.add(prompt)
        self._prompts[prompt] = tokens
        return None

    def ended(self, choice: int, *, prompt_tokens: int, completion_tokens: int) -> None:
        """What the generation took."""
        if prompt_tokens:
            self._counted.add(choice // self._of_each)
            self._prompts[choice // self._of_each] = prompt_tokens
        self._completions[choice] = completion_tokens

    def settle(self) -> None:
        """Nothing of the request is generated any more."""
        self._reservation.settle(self._gate.moment(), spent=self.spent)


@asynccontextmanager
async def texts_metered(
    exchange: Exchange, texts: Iterable[str | tuple[int, ...]]
) -> AsyncIterator[Callable[[int], None]]:
    """For what generates nothing: as many tokens as the texts can have are reserved while this is
    open, and settled to what the function is told. Raises `LimitExceeded`."""
    entry, gate = exchange.entry, exchange.gate
    if entry is None or gate is None or not entry.limits_tokens:
        yield lambda _: None
        return
    at = gate.moment()
    found = await entry.reserve(most_tokens(texts), at)
    if isinstance(found, Refusal):
        raise gate.refused(found, at)
    spent = 0

    def told(tokens: int) -> None:
        nonlocal spent
        spent = tokens

    try:
        yield told
    finally:
        found.settle(gate.moment(), spent=spent)


def _most_that_fit(left: int | None, prompt: int, made: int) -> int:
    """Where the request does not say: what the limit leaves, up to a bound."""
    if left is None:
        return MOST_BY_DEFAULT
    return max(min(MOST_BY_DEFAULT, (left - prompt) // made), 1)
