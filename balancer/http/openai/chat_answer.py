"""A generation's output as a chat completion: as chunks of a stream, or as one JSON body. Pure.

Chunks are made from a head and a tail of bytes that are built once a request: per token only the
text is encoded.
"""

from __future__ import annotations

from typing import Any

import msgspec

from balancer.dispatch.sink import Outcome
from balancer.http.openai.extras import AnswerHead, extra_fields, usage_fields
from balancer.http.openai.logprobs import chat_logprobs
from protocol.generation import (
    ContentDelta,
    ReasoningDelta,
    StepDelta,
    TokenLogprob,
    ToolCallDelta,
)

_encode = msgspec.json.encode
_DONE = b"data: [DONE]\n\n"


class ChatChunks:
    """Pushes a chat completion as server-sent events; each method returns whole events."""

    def __init__(self, head: AnswerHead, *, include_usage: bool) -> None:
        common = {
            "id": head.id,
            "object": "chat.completion.chunk",
            "created": head.created,
            "model": head.model,
        }
        self._request_id = head.request_id
        self._common = common
        self._include_usage = include_usage
        opening = _encode(common)[:-1]
        self._head = b"data: " + opening + b',"choices":[{"index":0,"delta":'
        self._content_head = self._head + b'{"content":'
        usage = b',"usage":null' if include_usage else b""
        self._end = b"}]" + usage + b"}\n\n"
        self._tail = b',"logprobs":null,"finish_reason":null' + self._end
        self._content_tail = b"}" + self._tail

    def opening(self) -> bytes:
        """The chunk that names the role."""
        return self._head + b'{"role":"assistant","content":""}' + self._tail

    def tokens(self, delta: StepDelta, logprobs: tuple[TokenLogprob, ...]) -> bytes:
        """One step's chunks; nothing for a step whose text is still held back."""
        if logprobs:
            return self._with_logprobs(delta, logprobs)
        if isinstance(delta, str):
            return self._content_head + _encode(delta) + self._content_tail if delta else b""
        return b"".join(self._head + _encode(_delta(part)) + self._tail for part in delta)

    def closing(self, outcome: Outcome) -> bytes:
        """The finish chunk, the usage chunk if wanted, and the stream's end. The last chunk
        carries our own fields."""
        finish = {
            "choices": [
                {
                    "index": 0,
                    "delta": {},
                    "logprobs": None,
                    "finish_reason": outcome.finish_reason,
                }
            ]
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

    def _with_logprobs(self, delta: StepDelta, logprobs: tuple[TokenLogprob, ...]) -> bytes:
        """The step's log probabilities go with the first of its chunks."""
        parts: list[dict[str, Any]] = (
            [{"content": delta}] if isinstance(delta, str) else [_delta(part) for part in delta]
        )
        first, *others = parts or [{"content": ""}]
        shaped = _encode({"content": chat_logprobs(logprobs), "refusal": None})
        chunk = self._head + _encode(first) + b',"logprobs":' + shaped
        chunk += b',"finish_reason":null' + self._end
        return chunk + b"".join(self._head + _encode(part) + self._tail for part in others)


class ChatAnswer:
    """Gathers a chat completion for one JSON body."""

    def __init__(self, head: AnswerHead, *, with_logprobs: bool) -> None:
        self._head = head
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._tool_calls: dict[int, _GatheredCall] = {}
        self._logprobs: list[dict[str, Any]] | None = [] if with_logprobs else None

    def take(self, delta: StepDelta, logprobs: tuple[TokenLogprob, ...]) -> None:
        """One step's output."""
        if logprobs and self._logprobs is not None:
            self._logprobs += chat_logprobs(logprobs)
        if isinstance(delta, str):
            self._content.append(delta)
            return
        for part in delta:
            match part:
                case ContentDelta():
                    self._content.append(part.text)
                case ReasoningDelta():
                    self._reasoning.append(part.text)
                case ToolCallDelta():
                    self._tool_calls.setdefault(part.index, _GatheredCall()).take(part)

    def body(self, outcome: Outcome) -> bytes:
        """The whole answer."""
        head = self._head
        logprobs = self._logprobs
        choice = {
            "index": 0,
            "message": self._message(),
            "logprobs": None if logprobs is None else {"content": logprobs, "refusal": None},
            "finish_reason": outcome.finish_reason,
        }
        return _encode(
            {
                "id": head.id,
                "object": "chat.completion",
                "created": head.created,
                "model": head.model,
                "choices": [choice],
                "usage": usage_fields(outcome.usage),
                **extra_fields(outcome, head.request_id),
            }
        )

    def _message(self) -> dict[str, Any]:
        content = "".join(self._content)
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        if self._tool_calls:
            message["content"] = content or None
            calls = sorted(self._tool_calls.items())
            message["tool_calls"] = [call.fields() for _, call in calls]
        return message


class _GatheredCall:
    """One tool call, from its pieces."""

    def __init__(self) -> None:
        self._id = ""
        self._name = ""
        self._arguments: list[str] = []

    def take(self, delta: ToolCallDelta) -> None:
        self._id = self._id or delta.id
        self._name = self._name or delta.name
        self._arguments.append(delta.arguments)

    def fields(self) -> dict[str, Any]:
        function = {"name": self._name, "arguments": "".join(self._arguments)}
        return {"id": self._id, "type": "function", "function": function}


def _delta(part: ContentDelta | ReasoningDelta | ToolCallDelta) -> dict[str, Any]:
    match part:
        case ContentDelta(text):
            return {"content": text}
        case ReasoningDelta(text):
            return {"reasoning_content": text}
        case ToolCallDelta(index, call_id, name, arguments):
            call: dict[str, Any] = {"index": index}
            if call_id or name:
                call |= {"id": call_id, "type": "function"}
            function: dict[str, str] = {"name": name} if name else {}
            return {"tool_calls": [{**call, "function": {**function, "arguments": arguments}}]}


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + _encode(value) + b"\n\n"
