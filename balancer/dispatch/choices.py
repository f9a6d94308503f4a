"""Several answers to one request: generations that share a prompt, and no more than that.

Each is a relay of its own: it waits, is routed, and goes on elsewhere by itself. The first starts
ahead, so that the others find its prompt being computed. One that fails ends them all, so none
starts unless there is room for all, and they are patient with each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct, structs

from balancer.dispatch.dispatcher import Dispatcher
from balancer.dispatch.metering import Meter
from balancer.dispatch.siblings import Siblings
from balancer.dispatch.sink import Flow, Outcome, Sink
from balancer.policy.choices import seed_of_choice
from balancer.policy.identity.principal import Principal
from protocol.generation import GenerationRequest, Timings, Usage


class Answers(Struct, frozen=True, kw_only=True):
    """How all choices ended well. `last` is the index of the one that was over last, `whole` is
    the request as one: see `joined`."""

    outcomes: tuple[Outcome, ...]
    last: int
    whole: Outcome


class ChoiceSink(Sink, Protocol):
    """Takes the output of one of several generations."""

    def end(self, outcome: Outcome) -> None:
        """It is over, and others go on."""


class Flows:
    """The handle on all generations of a request. Satisfies `Flow`."""

    __slots__ = ("_flows", "_is_paused")

    def __init__(self) -> None:
        self._flows: list[Flow] = []
        self._is_paused = False

    def add(self, flow: Flow) -> None:
        """One more; it is paused if the others are."""
        self._flows.append(flow)
        if self._is_paused:
            flow.pause()

    @property
    def attempts(self) -> int:
        """Of the one that was tried most often."""
        return max((flow.attempts for flow in self._flows), default=0)

    @property
    def queue_ms(self) -> float:
        """Until the first of them had a slot."""
        return min((flow.queue_ms for flow in self._flows), default=0.0)

    def pause(self) -> None:
        """Ask the agents to stop producing."""
        if self._is_paused:
            return
        self._is_paused = True
        for flow in self._flows:
            flow.pause()

    def resume(self) -> None:
        """Ask them to go on."""
        if not self._is_paused:  # asked at every event of a resumable stream
            return
        self._is_paused = False
        for flow in self._flows:
            flow.resume()

    def drop(self, reason: str) -> None:
        """Give the client up."""
        for flow in self._flows:
            flow.drop(reason)


async def generate_choices(
    dispatcher: Dispatcher,
    request: GenerationRequest,
    principal: Principal,
    sinks: Sequence[ChoiceSink],
    *,
    prompts: Sequence[str | tuple[int, ...]] = (),
    request_id: str,
    timeout_s: float | None = None,
    body_bytes: int = 0,
    meter: Meter | None = None,
) -> Answers:
    """Run a generation for each sink to its end. Sinks are told of an end while others go on.
    Several `prompts` take the place of the request's; each has the same
    number of sinks, those of the first come first.

    Raises the first `BalancerError` of any, once the others are cancelled. Cancelling is safe at
    any time, as with `Dispatcher.generate`.
    """
    if len(sinks) == 1:
        outcome = await dispatcher.generate(
            request,
            principal,
            sinks[0],
            request_id=request_id,
            timeout_s=timeout_s,
            body_bytes=body_bytes,
            meter=meter,
        )
        return Answers(outcomes=(outcome,), last=0, whole=outcome)
    return await _generate_several(
        dispatcher,
        request,
        principal,
        sinks,
        prompts=prompts,
        request_id=request_id,
        timeout_s=timeout_s,
        body_bytes=body_bytes,
        meter=meter,
    )


async def _generate_several(
    dispatcher: Dispatcher,
    request: GenerationRequest,
    principal: Principal,
    sinks: Sequence[ChoiceSink],
    *,
    prompts: Sequence[str | tuple[int, ...]],
    request_id: str,
    timeout_s: float | None,
    body_bytes: int,
    meter: Meter | None,
) -> Answers:
    """A function of its own: what its tasks share would cost a single generation that waits."""
    each_bytes = -(-body_bytes // len(sinks))  # they share one body
    dispatcher.check_room(request.model, principal, count=len(sinks), body_bytes=each_bytes)
    requests = [structs.replace(request, prompt=prompt) for prompt in prompts] or [request]
    of_each = len(sinks) // len(requests)
    chains, siblings = [dispatcher.chain(one, principal) for one in requests], Siblings()
    outcomes: dict[int, Outcome] = {}

    async def run(index: int, sink: ChoiceSink) -> None:
        outcomes[index] = outcome = await dispatcher.generate(
            structs.replace(requests[index // of_each], seed=seed_of_choice(request.seed, index)),
            principal,
            sink,
            request_id=request_id,
            timeout_s=timeout_s,
            body_bytes=each_bytes,
            choice=index,
            chain=chains[index // of_each],
            siblings=siblings,
            meter=meter,
        )
        if len(outcomes) < len(sinks):
            sink.end(outcome)

    try:
        async with asyncio.TaskGroup() as tasks:
            for index, sink in enumerate(sinks):
                tasks.create_task(run(index, sink), name=f"{request_id} choice {index}")
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    last = next(reversed(outcomes))
    in_order = tuple(outcomes[index] for index in range(len(sinks)))
    return Answers(outcomes=in_order, last=last, whole=joined(in_order, of_each))


def joined(outcomes: Sequence[Outcome], of_each: int) -> Outcome:
    """All choices as one, so many of each prompt: a prompt counts once, as its first choice found
    it in the cache, what was generated is summed, and times are those of the whole.

    Durations of the agents are the longest of each kind, but decoding lasts from the first start to
    the last end, as choices may come one after the other: so tokens a second are those of all
    together.
    """
    first = outcomes[0]
    usages = [outcome.usage for outcome in outcomes]
    of_prompts = usages[::of_each]
    timings = [outcome.timings for outcome in outcomes]
    queue_ms = min(outcome.queue_ms for outcome in outcomes)
    total_ms = max(outcome.total_ms for outcome in outcomes)
    first_tokens_ms = [outcome.ttft_ms for outcome in outcomes if outcome.ttft_ms > 0]
    return structs.replace(
        first,
        usage=Usage(
            prompt_tokens=sum(usage.prompt_tokens for usage in of_prompts),
            completion_tokens=sum(usage.completion_tokens for usage in usages),
            cached_tokens=sum(usage.cached_tokens for usage in of_prompts),
            reasoning_tokens=sum(usage.reasoning_tokens for usage in usages),
        ),
        timings=Timings(
            template_ms=max(timing.template_ms for timing in timings),
            queue_ms=max(timing.queue_ms for timing in timings),
            prefill_ms=max(timing.prefill_ms for timing in timings),
            decode_ms=max(total_ms - queue_ms, 0.0),
            encode_ms=max(timing.encode_ms for timing in timings),
            draft_steps=sum(timing.draft_steps for timing in timings),
            drafted_tokens=sum(timing.drafted_tokens for timing in timings),
            accepted_draft_tokens=sum(timing.accepted_draft_tokens for timing in timings),
        ),
        attempts=max(outcome.attempts for outcome in outcomes),
        queue_ms=queue_ms,
        ttft_ms=min(first_tokens_ms, default=0.0),
        total_ms=total_ms,
    )
