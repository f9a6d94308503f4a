"""How answers end, in the shape of either route: a stream's last events, or the one body. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from balancer.dispatch.sink import Outcome
from balancer.http.openai.extras import extra_fields, usage_fields
from balancer.http.shape import AnswerHead

AnswerKind = Literal["chat.completion", "chat.completion.chunk", "text_completion"]

_encode = msgspec.json.encode
_DONE = b"data: [DONE]\n\n"


def common_fields(head: AnswerHead, kind: AnswerKind) -> dict[str, Any]:
    """What every piece of an answer has."""
    return {"id": head.id, "object": kind, "created": head.created, "model": head.model}


def whole_body(
    head: AnswerHead,
    choices: Sequence[dict[str, Any] | msgspec.Raw],
    whole: Outcome,
    *,
    kind: AnswerKind,
) -> bytes:
    """The answer of all choices as JSON; choices may be that already."""
    return _encode(
        {
            **common_fields(head, kind),
            "choices": choices,
            "usage": usage_fields(whole.usage),
            **extra_fields(whole, head.request_id),
        }
    )


class StreamEnd:
    """The events that come after text; each method returns whole ones."""

    def __init__(self, head: AnswerHead, kind: AnswerKind, *, include_usage: bool) -> None:
        self._common = common_fields(head, kind)
        self._request_id = head.request_id
        self._include_usage = include_usage

    def ended(self, choice: dict[str, Any]) -> bytes:
        """The finish chunk of a choice."""
        usage = {"usage": None} if self._include_usage else {}
        return _event({**self._common, "choices": [choice], **usage})

    def closing(self, choice: dict[str, Any], whole: Outcome) -> bytes:
        """The finish chunk of the choice that is over last, the usage chunk if wanted, and the
        stream's end. The last chunk carries our own fields."""
        extra = extra_fields(whole, self._request_id)
        if not self._include_usage:
            return _event({**self._common, "choices": [choice], **extra}) + _DONE
        usage = {"choices": [], "usage": usage_fields(whole.usage)}
        return self.ended(choice) + _event({**self._common, **usage, **extra}) + _DONE


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + _encode(value) + b"\n\n"
