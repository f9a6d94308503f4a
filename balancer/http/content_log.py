"""`log_content`: what people write to models and what these answer, in the log. Off unless somebody
switches it on; this is the one place that logs any of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import structlog

from balancer.dispatch.choices import ChoiceSink
from balancer.dispatch.sink import Flow, Outcome
from balancer.http.shape import Generation
from balancer.settings import KIB
from protocol.chat import Message, TextPart
from protocol.generation import StepDelta, TokenLogprob, ToolCallDelta
from protocol.to_agent import Committed

log = structlog.get_logger(__name__)

MOST_CHARS = 8 * KIB
"""Of what is asked, and of each answer; the rest is not logged."""
MOST_ANSWERS = 8
"""Of one request."""


class HeardSink:
    """Hands everything on, and keeps the beginning of what is answered."""

    def __init__(self, sink: ChoiceSink) -> None:
        self._sink = sink
        self._texts: list[str] = []
        self._left = MOST_CHARS

    @property
    def text(self) -> str:
        """What was answered so far, tool calls and reasoning among it."""
        return "".join(self._texts)

    def attach(self, flow: Flow) -> None:
        """Handed on, as are all."""
        self._sink.attach(flow)

    def on_committed(self, agent: str, committed: Committed) -> None:
        """An agent works on it."""
        self._sink.on_committed(agent, committed)

    def on_tokens(
        self,
        token_ids: tuple[int, ...],
        delta: StepDelta,
        logprobs: tuple[TokenLogprob, ...],
    ) -> None:
        """One step's output."""
        if self._left > 0:
            text = _text_of(delta)[: self._left]
            self._left -= len(text)
            self._texts.append(text)
        self._sink.on_tokens(token_ids, delta, logprobs)

    def end(self, outcome: Outcome) -> None:
        """It is over, and others go on."""
        self._sink.end(outcome)


def log_content(request_id: str, generation: Generation, heard: Sequence[HeardSink]) -> None:
    """One line for a request. What it is called is not among what the log cuts by its name."""
    log.info(
        "content",
        request_id=request_id,
        asked=asked(generation),
        answered=[sink.text for sink in heard[:MOST_ANSWERS]],
    )


def asked(generation: Generation) -> str:
    """The beginning of what the model is given; of images and sounds only that there are some."""
    text, left = [], MOST_CHARS
    for piece in _pieces(generation):
        text.append(piece[:left])
        left -= len(piece)
        if left <= 0:
            break
    return "\n".join(text)[:MOST_CHARS]


def _pieces(generation: Generation) -> Iterator[str]:
    request = generation.request
    for message in request.messages or ():
        yield from _of_message(message)
    for prompt in generation.prompts or (request.prompt,):
        if isinstance(prompt, str):
            yield prompt
        elif prompt is not None:
            yield f"[{len(prompt)} tokens]"
    if request.suffix is not None:
        yield f"suffix: {request.suffix}"


def _of_message(message: Message) -> Iterator[str]:
    content = message.content
    parts = (TextPart(text=content),) if isinstance(content, str) else content or ()
    for part in parts:
        said = part.text if isinstance(part, TextPart) else f"[{type(part).__name__}]"
        yield f"{message.role}: {said}"
    for call in message.tool_calls:
        yield f"{message.role} calls {call.function.name}: {call.function.arguments}"


def _text_of(delta: StepDelta) -> str:
    if isinstance(delta, str):
        return delta
    return "".join(
        f"{part.name}{part.arguments}" if isinstance(part, ToolCallDelta) else part.text
        for part in delta
    )
