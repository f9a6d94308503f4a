"""A generation's output as a chat completion: as chunks of a stream, or for a JSON body. Pure.

Chunks are made from a head and a tail of bytes that are built once a request: per token only the
text is encoded.
"""

from __future__ import annotations

from typing import Any

import msgspec

from balancer.dispatch.sink import Outcome
from balancer.http.openai.ending import StreamEnd, common_fields
from balancer.http.openai.logprobs import chat_logprobs
from balancer.http.shape import AnswerHead
from protocol.generation import (
    ContentDelta,
    ReasoningDelta,
    StepDelta,
    TokenLogprob,
    ToolCallDelta,
)

_encode = msgspec.json.encode


class ChatChunks:
    """Pushes a choice of a chat completion as server-sent events; each method returns whole
    events."""

    def __init__(self, head: AnswerHead, index: int = 0, *, include_usage: bool) -> None:
        self._index = index
        self._end_of_stream = StreamEnd(head, "chat.completion.chunk", include_usage=include_usage)
        opening = _encode(common_fields(head, "chat.completion.chunk"))[:-1]
        self._head = b"data: " + opening + b',"choices":[{"index":%d,"delta":' % index
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

    def ended(self, outcome: Outcome) -> bytes:
        """The finish chunk, while other choices go on."""
        return self._end_of_stream.ended(self._finish(outcome))

    def closing(self, outcome: Outcome, whole: Outcome) -> bytes:
        """The finish chunk and what follows the last one; `whole` is all choices as one."""
        return self._end_of_stream.closing(self._finish(outcome), whole)

    def _finish(self, outcome: Outcome) -> dict[str, Any]:
        return {
            "index": self._index,
            "delta": {},
            "logprobs": None,
            "finish_reason": outcome.finish_reason,
        }

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
    """Gathers a choice of a chat completion."""

    def __init__(self, *, with_logprobs: bool) -> None:
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._tool_calls: dict[int, _GatheredCall] = {}
        self._logprobs: list[TokenLogprob] | None = [] if with_logprobs else None

    def take(self, delta: StepDelta, logprobs: tuple[TokenLogprob, ...]) -> None:
        """One step's output."""
        if logprobs and self._logprobs is not None:
            self._logprobs += logprobs
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

    def choice(self, index: int, outcome: Outcome) -> dict[str, Any]:
        """The whole of it."""
        logprobs = None
        if self._logprobs is not None:
            logprobs = {"content": chat_logprobs(self._logprobs), "refusal": None}
        return {
            "index": index,
            "message": self._message(),
            "logprobs": logprobs,
            "finish_reason": outcome.finish_reason,
        }

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
