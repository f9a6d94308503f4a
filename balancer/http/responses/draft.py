"""A response on its way: its output so far, item by item, and at last its body. Pure.

Streams and bodies are made of the same draft, so that they tell the same.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec

from balancer.dispatch.sink import Outcome
from balancer.http.openai.extras import extra_fields
from balancer.http.openai.logprobs import chat_logprobs
from balancer.http.shape import AnswerHead
from protocol.generation import (
    ContentDelta,
    FinishReason,
    ReasoningDelta,
    StepDelta,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)

ItemKind = Literal["message", "reasoning", "function_call"]
Status = Literal["in_progress", "completed", "incomplete"]

_ID_PREFIXES: dict[ItemKind, str] = {"message": "msg", "reasoning": "rs", "function_call": "fc"}
_INCOMPLETE: dict[FinishReason, dict[str, Any] | None] = {
    "length": {"reason": "max_output_tokens"},
    "content_filter": {"reason": "content_filter"},
    "cancelled": None,
}
"""Why a response may be incomplete, as `incomplete_details`."""


class OutputItem:
    """One item of the output: a message, a thought or a call of a function."""

    def __init__(
        self, kind: ItemKind, *, index: int, suffix: str, call: ToolCallDelta | None
    ) -> None:
        self.kind = kind
        self.index = index
        self.id = f"{_ID_PREFIXES[kind]}_{suffix}_{index}"
        self.status: Status = "in_progress"
        self.texts: list[str] = []
        self.logprobs: list[TokenLogprob] = []
        self._call_id = call.id if call is not None and call.id else f"call_{suffix}_{index}"
        self._name = "" if call is None else call.name
        self.call_index = -1 if call is None else call.index

    @property
    def text(self) -> str:
        """All of it, or the call's arguments."""
        return "".join(self.texts)

    def begun(self) -> dict[str, Any]:
        """As it is told of before its first text."""
        return self._fields("in_progress", "", [])

    def fields(self) -> dict[str, Any]:
        """As it is now."""
        if self.kind == "function_call":
            return self._fields(self.status, self.text, [])
        return self._fields(self.status, "", [self.part()])

    def empty_part(self) -> dict[str, Any]:
        """The one part of its content, before its first text."""
        return self._part("", [])

    def part(self) -> dict[str, Any]:
        """The one part of its content."""
        return self._part(self.text, chat_logprobs(self.logprobs))

    def _fields(self, status: Status, arguments: str, content: list[Any]) -> dict[str, Any]:
        fields: dict[str, Any] = {"id": self.id, "type": self.kind, "status": status}
        match self.kind:
            case "function_call":
                call = {"call_id": self._call_id, "name": self._name, "arguments": arguments}
                return {**fields, **call}
            case "message":
                return {**fields, "role": "assistant", "content": content}
            case "reasoning":
                return {**fields, "summary": [], "content": content, "encrypted_content": None}

    def _part(self, text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
        if self.kind == "reasoning":
            return {"type": "reasoning_text", "text": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


class Piece(NamedTuple):
    """What a step adds to an item."""

    item: OutputItem
    text: str
    logprobs: tuple[TokenLogprob, ...]


class Draft:
    """One response. `suffix` makes the ids of its items unique, `repeated` is what it says of its
    request."""

    def __init__(self, *, suffix: str, repeated: dict[str, Any]) -> None:
        self.suffix = suffix
        self._repeated = repeated
        self._waiting: list[TokenLogprob] = []
        """Log probabilities of text that is held back, before the message that they belong to."""
        self.items: list[OutputItem] = []
        self.sequence = 0
        """Of the next event."""
        self.head: AnswerHead | None = None
        """Once it was told that it began."""
        self.status: Status = "in_progress"
        self.body = b""
        """Once it is over."""

    def take(self, delta: StepDelta, logprobs: tuple[TokenLogprob, ...]) -> list[Piece]:
        """Put one step's output where it belongs; what the items got."""
        if isinstance(delta, str) or not delta:
            piece = self._text(delta if isinstance(delta, str) else "", logprobs)
            return [] if piece is None else [piece]
        pieces: list[Piece] = []
        for part in delta:
            match part:
                case ContentDelta(text):
                    piece = self._text(text, logprobs)
                    logprobs = ()
                case ReasoningDelta(text):
                    piece = self._thought(text)
                case ToolCallDelta():
                    piece = self._call(part)
            if piece is not None:
                pieces.append(piece)
        return pieces

    def end(self, *, is_complete: bool) -> None:
        """Nothing more comes."""
        if self.items and self.items[-1].status == "in_progress":
            self.items[-1].status = "completed" if is_complete else "incomplete"

    def finish(self, head: AnswerHead, outcome: Outcome, *, is_stored: bool = True) -> bytes:
        """The body, as JSON; `is_stored` is whether it was, where that was asked for."""
        is_complete = outcome.finish_reason not in _INCOMPLETE
        self.status = "completed" if is_complete else "incomplete"
        self.end(is_complete=is_complete)
        fields = {
            **self.fields(head, self.status),
            "completed_at": int(head.created + outcome.total_ms / 1000),
            "incomplete_details": _INCOMPLETE.get(outcome.finish_reason),
            "usage": _usage(outcome.usage),
            "store": self._repeated["store"] and is_stored,
            **extra_fields(outcome, head.request_id),
        }
        self.body = msgspec.json.encode(fields)
        return self.body

    def fields(self, head: AnswerHead, status: str) -> dict[str, Any]:
        """The response as it is now."""
        return {
            "id": head.id,
            "object": "response",
            "created_at": head.created,
            "status": status,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "model": head.model,
            "output": [item.fields() for item in self.items],
            "usage": None,
            **self._repeated,
        }

    def _text(self, text: str, logprobs: tuple[TokenLogprob, ...]) -> Piece | None:
        item = self._open_item("message")
        if item is None:
            if not text:
                self._waiting += logprobs
                return None
            item = self._begin("message")
            logprobs, self._waiting = (*self._waiting, *logprobs), []
        elif not text and not logprobs:
            return None
        item.texts.append(text)
        item.logprobs += logprobs
        return Piece(item, text, logprobs)

    def _thought(self, text: str) -> Piece | None:
        if not text:
            return None
        item = self._open_item("reasoning") or self._begin("reasoning")
        item.texts.append(text)
        return Piece(item, text, ())

    def _call(self, call: ToolCallDelta) -> Piece:
        item = self._open_item("function_call")
        if item is None or item.call_index != call.index:
            item = self._begin("function_call", call)
        item.texts.append(call.arguments)
        return Piece(item, call.arguments, ())

    def _open_item(self, kind: ItemKind) -> OutputItem | None:
        return self.items[-1] if self.items and self.items[-1].kind == kind else None

    def _begin(self, kind: ItemKind, call: ToolCallDelta | None = None) -> OutputItem:
        self.end(is_complete=True)
        if kind != "message":
            self._waiting = []
        item = OutputItem(kind, index=len(self.items), suffix=self.suffix, call=call)
        self.items.append(item)
        return item


def _usage(usage: Usage) -> dict[str, Any]:
    """The end token is counted. Nothing is charged for what is put into the cache."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
