"""A generation's output as a text completion: as chunks of a stream, or for a JSON body. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from balancer.dispatch.sink import Outcome
from balancer.http.openai.ending import StreamEnd, common_fields
from balancer.http.openai.logprobs import CompletionLogprobs
from balancer.http.shape import AnswerHead
from protocol.generation import StepDelta, TokenLogprob, ToolCallDelta

_encode = msgspec.json.encode


class CompletionChunks:
    """Pushes a choice of a text completion as server-sent events; each method returns whole
    events."""

    def __init__(
        self,
        head: AnswerHead,
        index: int = 0,
        *,
        include_usage: bool,
        echoed: Sequence[str] = (),
    ) -> None:
        """`echoed`: what comes before each choice of the request."""
        self._index = index
        self._echoed = echoed[index] if echoed else ""
        self._end_of_stream = StreamEnd(head, "text_completion", include_usage=include_usage)
        self._logprobs = CompletionLogprobs()
        opening = _encode(common_fields(head, "text_completion"))[:-1]
        self._head = b"data: " + opening + b',"choices":[{"text":'
        usage = b',"usage":null' if include_usage else b""
        self._end = b',"finish_reason":null}]' + usage + b"}\n\n"
        self._middle = b',"index":%d,"logprobs":' % index
        self._tail = self._middle + b"null" + self._end

    def opening(self) -> bytes:
        """The prompt, where it is to be echoed."""
        return self._head + _encode(self._echoed) + self._tail if self._echoed else b""

    def tokens(self, delta: StepDelta, logprobs: tuple[TokenLogprob, ...]) -> bytes:
        """One step's chunk; nothing for a step whose text is still held back."""
        text = delta if isinstance(delta, str) else text_of(delta)
        if logprobs:
            shaped = _encode(self._logprobs.shape(logprobs))
            return self._head + _encode(text) + self._middle + shaped + self._end
        return self._head + _encode(text) + self._tail if text else b""

    def ended(self, outcome: Outcome) -> bytes:
        """The finish chunk, while other choices go on."""
        return self._end_of_stream.ended(self._finish(outcome))

    def closing(self, outcome: Outcome, whole: Outcome) -> bytes:
        """The finish chunk and what follows the last one; `whole` is all choices as one."""
        return self._end_of_stream.closing(self._finish(outcome), whole)

    def _finish(self, outcome: Outcome) -> dict[str, Any]:
        reason = outcome.finish_reason
        return {"text": "", "index": self._index, "logprobs": None, "finish_reason": reason}


class CompletionAnswer:
    """Gathers a choice of a text completion."""

    def __init__(self, *, with_logprobs: bool, echoed: Sequence[str] = ()) -> None:
        """`echoed`: what comes before each choice of the request."""
        self._echoed = echoed
        self._text: list[str] = []
        self._logprobs: list[TokenLogprob] | None = [] if with_logprobs else None

    def take(self, delta: StepDelta, logprobs: tuple[TokenLogprob, ...]) -> None:
        """One step's output."""
        self._text.append(delta if isinstance(delta, str) else text_of(delta))
        if logprobs and self._logprobs is not None:
            self._logprobs += logprobs

    def choice(self, index: int, outcome: Outcome) -> dict[str, Any]:
        """The whole of it."""
        logprobs = None
        if self._logprobs is not None:
            logprobs = CompletionLogprobs().shape(self._logprobs)
        return {
            "text": "".join((self._echoed[index] if self._echoed else "", *self._text)),
            "index": index,
            "logprobs": logprobs,
            "finish_reason": outcome.finish_reason,
        }


def text_of(delta: StepDelta) -> str:
    """All text of a step, whatever the agent took it for: a text completion knows no kinds."""
    if isinstance(delta, str):
        return delta
    return "".join(
        part.arguments if isinstance(part, ToolCallDelta) else part.text for part in delta
    )
