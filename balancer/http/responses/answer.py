"""A generation's output as a response: as events of a stream, or as one body. Pure.

https://platform.openai.com/docs/api-reference/responses-streaming. Of a stream the pieces around a
text are built once an item: per token only the text is encoded, and the event's number written.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from balancer.dispatch.sink import Outcome
from balancer.errors import BalancerError
from balancer.http.openai.logprobs import chat_logprobs
from balancer.http.responses.draft import Draft, ItemKind, OutputItem, Piece
from balancer.http.shape import AnswerHead, StreamForm
from balancer.http.sse import COMMENT, CONTENT_TYPE
from protocol.generation import StepDelta, TokenLogprob

_encode = msgspec.json.encode
_DELTAS: dict[ItemKind, str] = {
    "message": "response.output_text.delta",
    "reasoning": "response.reasoning_text.delta",
    "function_call": "response.function_call_arguments.delta",
}
_DONE: dict[ItemKind, tuple[str, str]] = {
    "message": ("response.output_text.done", "text"),
    "reasoning": ("response.reasoning_text.done", "text"),
    "function_call": ("response.function_call_arguments.done", "arguments"),
}
_MIDDLE = b',"delta":'
_ERROR_CODES = {429: "rate_limit_exceeded"}


class ResponseEvents:
    """Pushes a response as server-sent events; each method returns whole ones."""

    def __init__(self, head: AnswerHead, index: int = 0, *, draft: Draft) -> None:
        del index  # there is one choice
        self._head = head
        self._draft = draft
        self._item: OutputItem | None = None
        """The one whose events come now."""
        self._texts: list[str] | None = None
        """Its texts, where it is a message."""
        self._delta_head = self._delta_tail = b""

    def opening(self) -> bytes:
        """What is known before the first token."""
        self._draft.head = self._head
        response = self._draft.fields(self._head, "in_progress")
        created = self._event("response.created", response=response)
        return created + self._event("response.in_progress", response=response)

    def tokens(self, delta: StepDelta, logprobs: tuple[TokenLogprob, ...]) -> bytes:
        """One step's events; nothing for a step whose text is still held back."""
        texts = self._texts
        if texts is not None and not logprobs and isinstance(delta, str):  # most steps
            if not delta:
                return b""
            texts.append(delta)
            draft = self._draft
            number = _encode(draft.sequence)
            draft.sequence += 1
            return self._delta_head + number + _MIDDLE + _encode(delta) + self._delta_tail
        return b"".join([self._told(piece) for piece in self._draft.take(delta, logprobs)])

    def ended(self, outcome: Outcome) -> bytes:
        """There are no other choices."""
        del outcome
        return b""

    def closing(self, outcome: Outcome, whole: Outcome) -> bytes:
        """The end of the last item and of the response."""
        del whole
        body = self._draft.body or self._draft.finish(self._head, outcome)
        name = f"response.{self._draft.status}"
        return self._item_done() + self._event(name, response=msgspec.Raw(body))

    def _told(self, piece: Piece) -> bytes:
        opened = b"" if piece.item is self._item else self._item_begun(piece.item)
        if not piece.text and not piece.logprobs:
            return opened
        draft = self._draft
        number = _encode(draft.sequence)
        draft.sequence += 1
        tail = self._delta_tail
        if piece.logprobs:
            tail = b',"logprobs":' + _encode(chat_logprobs(piece.logprobs)) + b"}\n\n"
        return opened + self._delta_head + number + _MIDDLE + _encode(piece.text) + tail

    def _item_begun(self, item: OutputItem) -> bytes:
        done = self._item_done()
        self._item = item
        self._texts = item.texts if item.kind == "message" else None
        name = _DELTAS[item.kind]
        place: dict[str, Any] = {"item_id": item.id, "output_index": item.index}
        events = self._event(
            "response.output_item.added", output_index=item.index, item=item.begun()
        )
        if item.kind != "function_call":
            place["content_index"] = 0
            events += self._event("response.content_part.added", **place, part=item.empty_part())
        start = _encode({"type": name, **place})[:-1]
        self._delta_head = b"event: %b\ndata: %b" % (name.encode(), start) + b',"sequence_number":'
        self._delta_tail = b',"logprobs":[]}\n\n' if item.kind == "message" else b"}\n\n"
        return done + events

    def _item_done(self) -> bytes:
        item = self._item
        if item is None:
            return b""
        self._item = self._texts = None
        name, field = _DONE[item.kind]
        place: dict[str, Any] = {"item_id": item.id, "output_index": item.index}
        whole: dict[str, Any] = {field: item.text}
        if item.kind != "function_call":
            place["content_index"] = 0
        part = item.part()
        if item.kind == "message":
            whole["logprobs"] = part["logprobs"]
        events = self._event(name, **place, **whole)
        if item.kind != "function_call":
            events += self._event("response.content_part.done", **place, part=part)
        return events + self._event(
            "response.output_item.done", output_index=item.index, item=item.fields()
        )

    def _event(self, name: str, **fields: Any) -> bytes:
        return _event(self._draft, name, **fields)


class GatheredResponse:
    """Gathers a response; its body is the draft's."""

    def __init__(self, *, draft: Draft) -> None:
        self._draft = draft

    def take(self, delta: StepDelta, logprobs: tuple[TokenLogprob, ...]) -> None:
        """One step's output."""
        self._draft.take(delta, logprobs)

    def choice(self, index: int, outcome: Outcome) -> None:
        """There is one, and it is the body."""
        del index, outcome


def whole_response(
    head: AnswerHead, choices: Sequence[msgspec.Raw], whole: Outcome, *, draft: Draft
) -> bytes:
    """The body."""
    del choices
    return draft.body or draft.finish(head, whole)


def form_of(draft: Draft) -> StreamForm:
    """What stands around a response's events; those that end it badly tell of its output so far."""
    return StreamForm(
        content_type=CONTENT_TYPE, comment=COMMENT, error_event=partial(_failure, draft)
    )


def _failure(draft: Draft, error: BalancerError, request_id: str) -> bytes:
    """What went wrong, and then the response as it is left, if it was told that it began."""
    told = _event(
        draft,
        "error",
        code=error.code,
        message=error.message,
        param=error.param,
        request_id=request_id,
    )
    if draft.head is None:
        return told
    draft.end(is_complete=False)
    code = _ERROR_CODES.get(error.status, "server_error")
    response = {
        **draft.fields(draft.head, "failed"),
        "error": {"code": code, "message": error.message},
        "store": False,
    }
    return told + _event(draft, "response.failed", response=response)


def _event(draft: Draft, name: str, **fields: Any) -> bytes:
    data = _encode({"type": name, "sequence_number": draft.sequence, **fields})
    draft.sequence += 1
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)
