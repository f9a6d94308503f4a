"""A generation's output in Ollama's shapes: as lines of a stream, or as one body. Pure.

Of a line only the text is encoded per token. Calls of tools come whole, as Ollama's clients expect.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from balancer.dispatch.sink import Outcome
from balancer.http.call_arguments import arguments_object
from balancer.http.iso_time import iso_time
from balancer.http.openai.logprobs import chat_logprobs
from balancer.http.shape import AnswerHead
from protocol.generation import (
    ContentDelta,
    FinishReason,
    ReasoningDelta,
    StepDelta,
    TokenLogprob,
    ToolCallDelta,
    TypedDelta,
)

_encode = msgspec.json.encode
_NO_TEXT = b'""'
_LOGPROBS = b',"logprobs":'
_NS_PER_MS = 1_000_000
_DONE_REASONS: dict[FinishReason, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "stop",
    "content_filter": "stop",
    "cancelled": "stop",
}


class Shape(Struct, frozen=True, kw_only=True):
    """Where the text stands in an object: JSON before it, and what closes it."""

    before: bytes
    after: bytes


MESSAGE = Shape(before=b'"message":{"role":"assistant","content":', after=b"}")
"""Of /api/chat."""
RESPONSE = Shape(before=b'"response":', after=b"")
"""Of /api/generate."""


class AnswerLines:
    """Pushes an answer as lines of JSON; each method returns whole ones. `model` is the name that
    the client used."""

    def __init__(
        self, head: AnswerHead, index: int = 0, *, shape: Shape, model: str | None
    ) -> None:
        del index  # there is one choice
        self._text_head = _opening(head, model)[:-1] + b"," + shape.before
        self._thinking_head = self._text_head + _NO_TEXT + b',"thinking":'
        self._calls_head = self._text_head + _NO_TEXT + b',"tool_calls":'
        self._after = shape.after
        self._tail = shape.after + b',"done":false}\n'
        self._calls = _Calls()

    def opening(self) -> bytes:
        """Nothing stands before the first token."""
        return b""

    def tokens(self, delta: StepDelta, logprobs: tuple[TokenLogprob, ...]) -> bytes:
        """One step's lines; nothing for a step whose text is still held back, unless it has log
        probabilities."""
        if logprobs:
            return self._scored(delta, logprobs)
        if isinstance(delta, str):
            return self._text(self._text_head, delta)
        return b"".join(self._part(part) for part in delta)

    def ended(self, outcome: Outcome) -> bytes:
        """There are no other choices."""
        del outcome
        return b""

    def closing(self, outcome: Outcome, whole: Outcome) -> bytes:
        """The call that is not told yet, and the line that says that it is done."""
        del whole
        done = self._text_head + _NO_TEXT + self._after + b"," + _encode(_ending(outcome))[1:]
        return self._shown(self._calls.end()) + done + b"\n"

    def _scored(self, delta: StepDelta, logprobs: tuple[TokenLogprob, ...]) -> bytes:
        """They stand beside the text; what is no text comes before them."""
        text = delta if isinstance(delta, str) else ""
        before = self._shown(self._calls.end()) if text else b""
        if not isinstance(delta, str):
            before = b"".join(self._part(part) for part in delta)
        line = self._text_head + _encode(text) + self._after
        return before + line + _LOGPROBS + _encode(chat_logprobs(logprobs)) + b',"done":false}\n'

    def _part(self, part: TypedDelta) -> bytes:
        match part:
            case ContentDelta(text):
                return self._text(self._text_head, text)
            case ReasoningDelta(text):
                return self._text(self._thinking_head, text)
            case ToolCallDelta():
                return self._shown(self._calls.take(part))

    def _text(self, head: bytes, text: str) -> bytes:
        if not text:
            return b""
        line = head + _encode(text) + self._tail
        return self._shown(self._calls.end()) + line if self._calls.is_open else line

    def _shown(self, calls: list[dict[str, Any]]) -> bytes:
        return self._calls_head + _encode(calls) + self._tail if calls else b""


class GatheredAnswer:
    """Gathers an answer."""

    def __init__(self, *, shape: Shape) -> None:
        self._shape = shape
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._calls = _Calls()
        self._whole_calls: list[dict[str, Any]] = []
        self._logprobs: list[TokenLogprob] = []

    def take(self, delta: StepDelta, logprobs: tuple[TokenLogprob, ...]) -> None:
        """One step's output."""
        self._logprobs += logprobs
        if isinstance(delta, str):
            self._add(self._texts, delta)
            return
        for part in delta:
            match part:
                case ContentDelta(text):
                    self._add(self._texts, text)
                case ReasoningDelta(text):
                    self._add(self._thoughts, text)
                case ToolCallDelta():
                    self._whole_calls += self._calls.take(part)

    def choice(self, index: int, outcome: Outcome) -> msgspec.Raw:
        """All but what every line has."""
        del index  # there is one
        self._whole_calls += self._calls.end()
        body = b"{" + self._shape.before + _encode("".join(self._texts))
        if self._thoughts:
            body += b',"thinking":' + _encode("".join(self._thoughts))
        if self._whole_calls:
            body += b',"tool_calls":' + _encode(self._whole_calls)
        body += self._shape.after
        if self._logprobs:
            body += _LOGPROBS + _encode(chat_logprobs(self._logprobs))
        return msgspec.Raw(body + b"," + _encode(_ending(outcome))[1:])

    def _add(self, pieces: list[str], text: str) -> None:
        if text:
            self._whole_calls += self._calls.end()
            pieces.append(text)


class _Calls:
    """Puts a call together; it is whole when something else follows."""

    def __init__(self) -> None:
        self.is_open = False
        self._index = 0
        self._name = ""
        self._pieces: list[str] = []

    def take(self, part: ToolCallDelta) -> list[dict[str, Any]]:
        """Add a piece; the call before, if it is another one's."""
        whole = self.end() if part.index != self._index else []
        self.is_open, self._index = True, part.index
        self._name = self._name or part.name
        self._pieces.append(part.arguments)
        return whole

    def end(self) -> list[dict[str, Any]]:
        """The open call, if there is one."""
        if not self.is_open:
            return []
        arguments = arguments_object("".join(self._pieces))
        call = {"function": {"name": self._name, "arguments": arguments}}
        self.is_open, self._name, self._pieces = False, "", []
        return [call]


def whole_answer(
    head: AnswerHead, choices: Sequence[msgspec.Raw], whole: Outcome, *, model: str | None
) -> bytes:
    """The body; the one choice has the rest of its fields."""
    del whole
    return _opening(head, model)[:-1] + b"," + bytes(choices[0])[1:]


def loaded_answer(model: str, created: int, *, shape: Shape) -> bytes:
    """What is said to a request without a prompt."""
    common = _encode({"model": model, "created_at": iso_time(created)})[:-1]
    done = _encode({"done": True, "done_reason": "load"})[1:]
    return common + b"," + shape.before + _NO_TEXT + shape.after + b"," + done


def _opening(head: AnswerHead, model: str | None) -> bytes:
    return _encode({"model": model or head.model, "created_at": iso_time(head.created)})


def _ending(outcome: Outcome) -> dict[str, Any]:
    """Why and after how long it ended, in nanoseconds. Where several agents worked on it, none
    measured all of it: then the first token parts the prompt's time from the answer's."""
    timings, is_whole = outcome.timings, outcome.attempts == 1
    prompt_ms = timings.prefill_ms if is_whole else 0.0
    answer_ms = timings.decode_ms if is_whole else 0.0
    first_ms = outcome.ttft_ms or outcome.total_ms
    return {
        "done": True,
        "done_reason": _DONE_REASONS[outcome.finish_reason],
        "total_duration": nanoseconds(outcome.total_ms),
        "load_duration": nanoseconds(outcome.queue_ms),
        "prompt_eval_count": outcome.usage.prompt_tokens,
        "prompt_eval_duration": nanoseconds(prompt_ms or first_ms - outcome.queue_ms),
        "eval_count": outcome.usage.completion_tokens,
        "eval_duration": nanoseconds(answer_ms or outcome.total_ms - first_ms),
    }


def nanoseconds(milliseconds: float) -> int:
    """How Ollama tells durations."""
    return max(round(milliseconds * _NS_PER_MS), 0)
