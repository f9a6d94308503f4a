"""A generation's output as a text completion: as chunks of a stream, or as one JSON body. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from balancer.dispatch.sink import Outcome
from balancer.http.openai.extras import AnswerHead, extra_fields, usage_fields
from balancer.http.openai.logprobs import CompletionLogprobs
from protocol.generation import StepDelta, TokenLogprob, ToolCallDelta

_encode = msgspec.json.encode
_DONE = b"data: [DONE]\n\n"


class CompletionChunks:
    """Pushes a text completion as server-sent events; each method returns whole events."""

    def __init__(self, head: AnswerHead, *, include_usage: bool) -> None:
        self._common = _common(head)
        self._request_id = head.request_id
        self._include_usage = include_usage
        self._logprobs = CompletionLogprobs()
        self._head = b"data: " + _encode(self._common)[:-1] + b',"choices":[{"text":'
        usage = b',"usage":null' if include_usage else b""
        self._end = b',"finish_reason":null}]' + usage + b"}\n\n"
        self._tail = b',"index":0,"logprobs":null' + self._end

    def opening(self) -> bytes:
        """Text completions have no opening chunk."""
        return b""

    def tokens(self, delta: StepDelta, logprobs: tuple[TokenLogprob, ...]) -> bytes:
        """One step's chunk; nothing for a step whose text is still held back."""
        text = delta if isinstance(delta, str) else text_of(delta)
        if logprobs:
            shaped = _encode(self._logprobs.shape(logprobs))
            return self._head + _encode(text) + b',"index":0,"logprobs":' + shaped + self._end
        return self._head + _encode(text) + self._tail if text else b""

    def closing(self, outcome: Outcome) -> bytes:
        """The finish chunk, the usage chunk if wanted, and the stream's end."""
        reason = outcome.finish_reason
        finish: dict[str, Any] = {
            "choices": [{"text": "", "index": 0, "logprobs": None, "finish_reason": reason}]
        }
        extra = extra_fields(outcome, self._request_id)
        if not self._include_usage:
            return _event({**self._common, **finish, **extra}) + _DONE
        usage = {"choices": [], "usage": usage_fields(outcome.usage)}
        return (
            _event({**self._common, **finish, "usage": None})
            + _event({**self._common, **usage, **extra})
            + _DONE
        )


class CompletionAnswer:
    """Gathers a text completion for one JSON body."""

    def __init__(self, head: AnswerHead, *, with_logprobs: bool) -> None:
        self._head = head
        self._text: list[str] = []
        self._logprobs: list[TokenLogprob] | None = [] if with_logprobs else None

    def take(self, delta: StepDelta, logprobs: tuple[TokenLogprob, ...]) -> None:
        """One step's output."""
        self._text.append(delta if isinstance(delta, str) else text_of(delta))
        if logprobs and self._logprobs is not None:
            self._logprobs += logprobs

    def body(self, outcome: Outcome) -> bytes:
        """The whole answer."""
        logprobs = None
        if self._logprobs is not None:
            logprobs = CompletionLogprobs().shape(self._logprobs)
        choice = {
            "text": "".join(self._text),
            "index": 0,
            "logprobs": logprobs,
            "finish_reason": outcome.finish_reason,
        }
        return _encode(
            {
                **_common(self._head),
                "choices": [choice],
                "usage": usage_fields(outcome.usage),
                **extra_fields(outcome, self._head.request_id),
            }
        )


def text_of(delta: StepDelta) -> str:
    """All text of a step, whatever the agent took it for: a text completion knows no kinds."""
    if isinstance(delta, str):
        return delta
    return "".join(
        part.arguments if isinstance(part, ToolCallDelta) else part.text for part in delta
    )


def _common(head: AnswerHead) -> dict[str, Any]:
    return {
        "id": head.id,
        "object": "text_completion",
        "created": head.created,
        "model": head.model,
    }


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + _encode(value) + b"\n\n"
