"""A generation's output as a message of Anthropic's: as events of a stream, or as one body. Pure.

A message is a list of blocks: text, thoughts, calls of tools. Of a stream the pieces around a text
are built once a block: per token only the text is encoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from balancer.dispatch.sink import Outcome
from balancer.http.call_arguments import arguments_object
from balancer.http.shape import AnswerHead
from protocol.generation import (
    ContentDelta,
    FinishReason,
    ReasoningDelta,
    StepDelta,
    TokenLogprob,
    ToolCallDelta,
    TypedDelta,
    Usage,
)

_encode = msgspec.json.encode
_END = b"}}\n\n"
_STOP_REASONS: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "cancelled": "end_turn",
}
_DELTAS = {"text": ("text_delta", "text"), "thinking": ("thinking_delta", "thinking")}


class MessageEvents:
    """Pushes a message as server-sent events; each method returns whole ones."""

    def __init__(self, head: AnswerHead, index: int = 0) -> None:
        del index  # there is one choice
        self._head = head
        self._blocks = 0
        self._kind = ""
        """Of the open block: `text`, `thinking`, or `tool` with its index; empty: none is open."""
        self._delta_head = b""

    def opening(self) -> bytes:
        """What is known before the first token."""
        head = self._head
        counted = Usage(
            prompt_tokens=head.prompt_tokens, completion_tokens=0, cached_tokens=head.cached_tokens
        )
        message = {
            **_common(head),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(counted),
        }
        return _event("message_start", message=message)

    def tokens(self, delta: StepDelta, logprobs: tuple[TokenLogprob, ...]) -> bytes:
        """One step's events; nothing for a step whose text is still held back."""
        del logprobs  # this API has none
        if isinstance(delta, str):
            return self._text("text", delta) if delta else b""
        return b"".join(self._part(part) for part in delta)

    def ended(self, outcome: Outcome) -> bytes:
        """There are no other choices."""
        del outcome
        return b""

    def closing(self, outcome: Outcome, whole: Outcome) -> bytes:
        """The end of the open block and of the message."""
        del whole
        ending = {"stop_reason": stop_reason(outcome), "stop_sequence": outcome.stop_sequence}
        events = [
            self._close(),
            _event("message_delta", delta=ending, usage=_usage(outcome.usage)),
            _event("message_stop"),
        ]
        return b"".join(events)

    def _part(self, part: TypedDelta) -> bytes:
        match part:
            case ContentDelta(text):
                return self._text("text", text) if text else b""
            case ReasoningDelta(text):
                return self._text("thinking", text) if text else b""
            case ToolCallDelta():
                return self._tool(part)

    def _text(self, kind: str, text: str) -> bytes:
        opened = b""
        if kind != self._kind:
            empty = {"signature": ""} if kind == "thinking" else {}
            opened = self._open(kind, {"type": kind, kind: "", **empty}, *_DELTAS[kind])
        return opened + self._delta_head + _encode(text) + _END

    def _tool(self, part: ToolCallDelta) -> bytes:
        kind, opened = f"tool {part.index}", b""
        if kind != self._kind:
            block = {"type": "tool_use", "id": part.id, "name": part.name, "input": {}}
            opened = self._open(kind, block, "input_json_delta", "partial_json")
        if not part.arguments:
            return opened
        return opened + self._delta_head + _encode(part.arguments) + _END

    def _open(self, kind: str, block: dict[str, Any], delta: str, field: str) -> bytes:
        closed = self._close()
        self._kind = kind
        self._delta_head = (
            b"event: content_block_delta\n"
            b'data: {"type":"content_block_delta","index":%d,"delta":{"type":"%b","%b":'
            % (self._blocks, delta.encode(), field.encode())
        )
        return closed + _event("content_block_start", index=self._blocks, content_block=block)

    def _close(self) -> bytes:
        if not self._kind:
            return b""
        self._kind = ""
        self._blocks += 1
        return _event("content_block_stop", index=self._blocks - 1)


class GatheredMessage:
    """Gathers a message."""

    def __init__(self) -> None:
        self._blocks: list[_Block] = []

    def take(self, delta: StepDelta, logprobs: tuple[TokenLogprob, ...]) -> None:
        """One step's output."""
        del logprobs  # this API has none
        if isinstance(delta, str):
            self._add("text", delta)
            return
        for part in delta:
            match part:
                case ContentDelta(text):
                    self._add("text", text)
                case ReasoningDelta(text):
                    self._add("thinking", text)
                case ToolCallDelta():
                    self._add(f"tool {part.index}", part.arguments, part)

    def choice(self, index: int, outcome: Outcome) -> dict[str, Any]:
        """All but what every message has."""
        del index  # there is one
        return {
            "content": [block.fields() for block in self._blocks],
            "stop_reason": stop_reason(outcome),
            "stop_sequence": outcome.stop_sequence,
            "usage": _usage(outcome.usage),
        }

    def _add(self, kind: str, text: str, call: ToolCallDelta | None = None) -> None:
        if not text and call is None:
            return
        if not self._blocks or self._blocks[-1].kind != kind:
            self._blocks.append(_Block(kind, call))
        self._blocks[-1].pieces.append(text)


class _Block:
    """One block, from its pieces."""

    def __init__(self, kind: str, call: ToolCallDelta | None) -> None:
        self.kind = kind
        self.pieces: list[str] = []
        self._call = call

    def fields(self) -> dict[str, Any]:
        text = "".join(self.pieces)
        if self._call is not None:
            call = self._call
            arguments = arguments_object(text)
            return {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}
        if self.kind == "thinking":
            return {"type": "thinking", "thinking": text, "signature": ""}
        return {"type": "text", "text": text}


def whole_message(head: AnswerHead, choices: Sequence[msgspec.Raw], whole: Outcome) -> bytes:
    """The body; the one choice has the rest of its fields."""
    del whole
    return _encode(_common(head))[:-1] + b"," + bytes(choices[0])[1:]


def stop_reason(outcome: Outcome) -> str:
    """In their words."""
    if outcome.finish_reason == "stop" and outcome.stop_sequence is not None:
        return "stop_sequence"
    return _STOP_REASONS[outcome.finish_reason]


def _common(head: AnswerHead) -> dict[str, Any]:
    return {"id": head.id, "type": "message", "role": "assistant", "model": head.model}


def _usage(usage: Usage) -> dict[str, int]:
    """Their `input_tokens` are those that were not cached."""
    return {
        "input_tokens": max(usage.prompt_tokens - usage.cached_tokens, 0),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }


def _event(name: str, **fields: Any) -> bytes:
    data = _encode({"type": name, **fields})
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
