"""What a family of APIs gives for its generations: the shapes of answers, streams and errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from balancer.dispatch.sink import Outcome
from balancer.errors import BalancerError
from protocol.generation import GenerationRequest, StepDelta, TokenLogprob


class AnswerHead(Struct, frozen=True, kw_only=True):
    """What every piece of one answer repeats."""

    id: str
    created: int
    model: str
    request_id: str
    prompt_tokens: int = 0
    """As the agent counted them, where that is known before the first event."""
    cached_tokens: int = 0
    """Of these, likewise; by the end there may be more."""


class Chunks(Protocol):
    """Turns a choice's output into a stream's events; each method returns whole ones."""

    def opening(self) -> bytes: ...

    def tokens(self, delta: StepDelta, logprobs: tuple[TokenLogprob, ...]) -> bytes: ...

    def ended(self, outcome: Outcome) -> bytes:
        """It is over, and others go on."""

    def closing(self, outcome: Outcome, whole: Outcome) -> bytes:
        """It is over, and so is the request."""


class Gathered(Protocol):
    """Gathers a choice's output."""

    def take(self, delta: StepDelta, logprobs: tuple[TokenLogprob, ...]) -> None: ...

    def choice(self, index: int, outcome: Outcome) -> Any:
        """Its part of the body, as something that becomes JSON."""


class StreamForm(Struct, frozen=True, kw_only=True):
    """How a stream looks around its events."""

    content_type: str
    comment: bytes
    """What shows in silence that it lives; empty: nothing may, and its events bear no ids."""
    error_event: Callable[[BalancerError, str], bytes]
    """What ends it badly; given the error and the request's id."""


WholeBody = Callable[[AnswerHead, Sequence[msgspec.Raw], Outcome], bytes]
"""The body of an answer that is not streamed, of its choices as JSON."""


class Generation(Struct, frozen=True, kw_only=True):
    """What is asked of the dispatcher, and how the answer is to look. `chunks` is given a choice's
    index."""

    request: GenerationRequest
    prompts: tuple[str | tuple[int, ...], ...] = ()
    """Several, in place of the request's: each has its choices."""
    choices: int = 1
    """Of each prompt."""
    best_of: int = 0
    """As many are made of each prompt, if that is more, and the likeliest are shown; not in a
    stream."""
    id_prefix: str
    body_bytes: int
    timeout_s: float | None = None
    is_stream: bool
    chunks: Callable[[AnswerHead, int], Chunks]
    gathered: Callable[[], Gathered]
    whole: WholeBody
    form: StreamForm
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    """Of the answer, streamed or not, beside those that every family has."""
    grammar_param: str = "grammar"
    """The parameter to name where an agent can make nothing of the grammar."""
    tool_schema: str = "function.parameters"
    """Where a tool of `tools` has its schema, likewise."""
    logprobs_param: str = "top_logprobs"
    """The one to name where too many log probabilities are asked for."""
    prompt_param: str = "messages"
    """The one to name where the prompt is at fault."""
    before_end: Callable[[AnswerHead, Outcome], Awaitable[None]] | None = None
    """Awaited when it ended well, before the last of its answer is made. Must not raise."""

    @property
    def made_of_each(self) -> int:
        """Generations of a prompt, shown or not."""
        return max(self.choices, self.best_of)

    @property
    def made(self) -> int:
        """Generations of the request."""
        return self.made_of_each * max(len(self.prompts), 1)
