"""How an agent link tells what becomes of a call."""

from __future__ import annotations

from typing import Protocol

from protocol.generation import SamplerState, StepDelta, TokenLogprob
from protocol.jsonrpc import ErrorObject
from protocol.to_agent import Committed
from protocol.to_balancer import Finished


class CallHandler(Protocol):
    """What becomes of one call. All synchronous; exactly one of the last four comes, once."""

    def on_committed(self, committed: Committed) -> None: ...

    def on_tokens(
        self,
        token_ids: tuple[int, ...],
        delta: StepDelta,
        logprobs: tuple[TokenLogprob, ...],
    ) -> None: ...

    def on_prefill(self, done: int) -> None:
        """So many of the prompt's tokens are in the cache."""

    def on_sampler_state(self, state: SamplerState) -> None:
        """What cannot be rebuilt from the tokens; it comes before the tokens that it belongs to."""

    def on_garbled(self) -> None:
        """Tokens of it may have come that cannot be read: what follows has a hole before it."""

    def on_refused(self, error: ErrorObject) -> None: ...

    def on_finished(self, finished: Finished) -> None: ...

    def on_failed(self, error: ErrorObject) -> None: ...

    def on_link_lost(self) -> None: ...


class DroppedHandler:
    """Stands in for a handler that raised or went elsewhere; its call keeps its slot until the
    agent confirms."""

    def on_committed(self, committed: Committed) -> None: ...

    def on_tokens(
        self,
        token_ids: tuple[int, ...],
        delta: StepDelta,
        logprobs: tuple[TokenLogprob, ...],
    ) -> None: ...

    def on_prefill(self, done: int) -> None: ...

    def on_sampler_state(self, state: SamplerState) -> None: ...

    def on_garbled(self) -> None: ...

    def on_refused(self, error: ErrorObject) -> None: ...

    def on_finished(self, finished: Finished) -> None: ...

    def on_failed(self, error: ErrorObject) -> None: ...

    def on_link_lost(self) -> None: ...


DROPPED = DroppedHandler()
