"""What dispatch and its caller say to each other about one generation.

Nothing here knows HTTP; `balancer.http` implements `Sink`, `balancer.dispatch.relay` implements
`Flow`.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from protocol.generation import FinishReason, StepDelta, Timings, TokenLogprob, Usage
from protocol.to_agent import Committed


class Flow(Protocol):
    """The sink's handle on its generation. Calls return at once and do nothing after the end."""

    @property
    def attempts(self) -> int:
        """Agents tried so far, the present one included; 0 before the first."""

    @property
    def queue_ms(self) -> float:
        """Milliseconds spent waiting for a slot so far."""

    def pause(self) -> None:
        """Ask the agent to stop producing; tokens on their way still arrive."""

    def resume(self) -> None:
        """Ask the agent to go on."""

    def drop(self, reason: str) -> None:
        """Give the client up: the call is cancelled and `generate` raises `ClientDropped`."""


class Sink(Protocol):
    """Takes one generation's output. All calls are synchronous, run inside the agent link's frame
    callback and must neither block nor raise."""

    def attach(self, flow: Flow) -> None:
        """Called once, before anything else."""

    def on_committed(self, agent: str, committed: Committed) -> None:
        """An agent took the request: prompt tokens are counted, no token came yet."""

    def on_tokens(
        self,
        token_ids: tuple[int, ...],
        delta: StepDelta,
        logprobs: tuple[TokenLogprob, ...],
    ) -> None:
        """One step's output; `logprobs` is empty unless they were asked for."""


class Outcome(Struct, frozen=True, kw_only=True):
    """How a generation ended well. `agent` is the one that finished it."""

    finish_reason: FinishReason
    stop_sequence: str | None
    usage: Usage
    timings: Timings
    agent: str
    attempts: int
    queue_ms: float
    ttft_ms: float
    """From the request's arrival to its first token; 0 if it had none."""
    total_ms: float
