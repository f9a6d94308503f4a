"""The items of a conversation: as canonical messages, and as they are kept and listed.

Pure: raises `InvalidRequest`. An item is part of a turn, a message is a whole one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from balancer.http.faults import missing, refuse_value, unsupported
from balancer.http.openai import schema as openai_schema
from balancer.http.openai.parts import DETAILS, content_part
from balancer.http.responses.schema import ItemIn, PartIn
from protocol.chat import FunctionCall, Message, Part, Role, TextPart, ToolCall

MAX_PARTS = 10_000
"""Of all contents together: a bound on what one request can make the loop do at a stretch."""
_TYPES = "message, function_call, function_call_output or reasoning"
_ROLES: dict[str, Role] = {
    "system": "system", "developer": "developer", "user": "user", "assistant": "assistant",
}  # fmt: skip
_ID_PREFIXES = {
    "message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs",
}  # fmt: skip


def items_in(given: str | list[ItemIn] | None) -> list[ItemIn]:
    """What `input` brings."""
    if given is None:
        raise missing("input")
    return [ItemIn(role="user", content=given)] if isinstance(given, str) else given


def messages_of(history: Sequence[ItemIn], items: Sequence[ItemIn]) -> list[Message]:
    """The conversation: `history` is what was said before, `items` what this request brings."""
    _check_parts(history, items)
    conversation = _Conversation()
    for item in history:
        conversation.add(item, "previous_response_id")
    for i, item in enumerate(items):
        conversation.add(item, f"input[{i}]")
    return conversation.ended()


def kept_items(items: Iterable[ItemIn], *, suffix: str) -> list[dict[str, Any]]:
    """Items that `messages_of` takes, in full and with ids; `suffix` makes those unique."""
    return [_kept_item(item, f"{suffix}_in{i}") for i, item in enumerate(items)]


def _check_parts(*conversation: Iterable[ItemIn]) -> None:
    parts = sum(
        len(pieces)
        for items in conversation
        for item in items
        for pieces in (item.content, item.summary, item.output)
        if isinstance(pieces, list)
    )
    if parts > MAX_PARTS:
        expected = f"such that the items of the conversation have at most {MAX_PARTS} parts"
        raise refuse_value("input", f"{parts} parts", expected)


class _Conversation:
    """Puts turns together: what an assistant thinks, says and calls until somebody answers."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._thoughts: list[str] = []
        self._texts: list[str] = []
        self._calls: list[ToolCall] = []

    def add(self, item: ItemIn, at: str) -> None:
        match item.type or "message":
            case "message":
                self._add_message(item, at)
            case "reasoning":
                self._end_said()
                self._thoughts += _thoughts(item)
            case "function_call":
                self._calls.append(_call(item, at))
            case "function_call_output":
                self._end_turn()
                self._messages.append(_output(item, at))
            case other:
                raise unsupported(f"{at}.type", other, _TYPES)

    def ended(self) -> list[Message]:
        """All messages."""
        self._end_turn()
        return self._messages

    def _add_message(self, item: ItemIn, at: str) -> None:
        if item.role is None:
            raise missing(f"{at}.role")
        role = _ROLES.get(item.role)
        if role is None:
            raise refuse_value(f"{at}.role", item.role, "one of " + ", ".join(_ROLES))
        if item.content is None:
            raise missing(f"{at}.content")
        if role == "assistant":
            self._end_said()
            self._texts.append(_said(item.content, f"{at}.content"))
            return
        self._end_turn()
        content = _content(item.content, f"{at}.content")
        self._messages.append(Message(role=role, content=content))

    def _end_said(self) -> None:
        """Two messages in a row are two turns, unless calls between them wait for an answer."""
        if self._texts and not self._calls:
            self._end_turn()

    def _end_turn(self) -> None:
        if not (self._thoughts or self._texts or self._calls):
            return
        self._messages.append(
            Message(
                role="assistant",
                content="".join(self._texts) if self._texts or not self._calls else None,
                tool_calls=tuple(self._calls),
                reasoning_content="\n".join(self._thoughts) or None,
            )
        )
        self._thoughts, self._texts, self._calls = [], [], []


def _said(content: str | list[PartIn], at: str) -> str:
    """What an assistant said; a refusal is what it said, too."""
    if isinstance(content, str):
        return content
    texts = []
    for i, part in enumerate(content):
        text = part.refusal if part.type == "refusal" else part.text
        if part.type not in ("output_text", "input_text", "refusal"):
            raise unsupported(f"{at}[{i}].type", part.type, "output_text or refusal")
        if text is None:
            field = "refusal" if part.type == "refusal" else "text"
            raise missing(f"{at}[{i}].{field}")
        texts.append(text)
    return "".join(texts)


def _content(content: str | list[PartIn], at: str) -> str | tuple[Part, ...]:
    if isinstance(content, str):
        return content
    parts = [_part(part, f"{at}[{i}]") for i, part in enumerate(content)]
    if not parts:
        return ""
    if len(parts) == 1 and isinstance(parts[0], TextPart):
        return parts[0].text  # as templates for text alone want it
    return tuple(parts)


def _part(part: PartIn, at: str) -> Part:
    match part.type:
        case "input_text" | "output_text":
            if part.text is None:
                raise missing(f"{at}.text")
            return TextPart(text=part.text)
        case "input_image":
            if part.file_id is not None:
                raise unsupported(f"{at}.file_id", part.file_id, "`image_url` instead")
            if part.detail not in DETAILS:
                raise unsupported(f"{at}.detail", part.detail, '"auto"')
            image = openai_schema.PartIn(type="image_url", image_url=part.image_url)
            return content_part(image, at)
        case other:
            raise unsupported(f"{at}.type", other, "input_text or input_image")


def _thoughts(item: ItemIn) -> list[str]:
    """In the clear, or as their summary; nobody here can read encrypted ones."""
    return _texts(item.content) or _texts(item.summary)


def _texts(pieces: str | list[PartIn] | None) -> list[str]:
    parts = [PartIn(type="", text=pieces)] if isinstance(pieces, str) else pieces
    return [part.text for part in parts or () if part.text]


def _call(item: ItemIn, at: str) -> ToolCall:
    if item.call_id is None:
        raise missing(f"{at}.call_id")
    if not item.name:
        raise missing(f"{at}.name")
    if item.arguments is None:
        raise missing(f"{at}.arguments")
    return ToolCall(
        id=item.call_id, function=FunctionCall(name=item.name, arguments=item.arguments)
    )


def _output(item: ItemIn, at: str) -> Message:
    if item.call_id is None:
        raise missing(f"{at}.call_id")
    content = _content(_output_of(item, f"{at}.output"), f"{at}.output")
    return Message(role="tool", tool_call_id=item.call_id, content=content)


def _output_of(item: ItemIn, at: str) -> str | list[PartIn]:
    if item.output is None:
        raise missing(at)
    try:
        given: str | list[PartIn] = msgspec.convert(item.output, str | list[PartIn])
    except msgspec.ValidationError as error:
        expected = "a string or a list of parts"
        raise refuse_value(at, item.output, expected, code="invalid_type") from error
    return given


# --- as they are kept ---


def _kept_item(item: ItemIn, suffix: str) -> dict[str, Any]:
    kind = item.type or "message"
    kept = {"id": item.id or f"{_ID_PREFIXES[kind]}_{suffix}", "type": kind}
    match kind:
        case "message":
            content = _kept_parts(item.content or "", role=item.role)
            return {**kept, "status": "completed", "role": item.role, "content": content}
        case "function_call":
            call = {"call_id": item.call_id, "name": item.name, "arguments": item.arguments}
            return {**kept, **call, "status": "completed"}
        case "function_call_output":
            given = _output_of(item, "")
            output = given if isinstance(given, str) else _kept_parts(given)
            return {**kept, "call_id": item.call_id, "output": output, "status": "completed"}
        case _:
            summary = [{"type": "summary_text", "text": text} for text in _texts(item.summary)]
            content = [{"type": "reasoning_text", "text": text} for text in _texts(item.content)]
            return {**kept, "summary": summary, "content": content}


def _kept_parts(content: str | list[PartIn], *, role: str | None = None) -> list[dict[str, Any]]:
    parts = [PartIn(type="input_text", text=content)] if isinstance(content, str) else content
    return [_kept_part(part, role) for part in parts]


def _kept_part(part: PartIn, role: str | None) -> dict[str, Any]:
    if part.type == "input_image":
        detail = part.detail or "auto"
        return {"type": "input_image", "image_url": part.image_url, "detail": detail}
    if part.type == "refusal":
        return {"type": "refusal", "refusal": part.refusal}
    if role == "assistant":
        return {"type": "output_text", "text": part.text, "annotations": [], "logprobs": []}
    return {"type": "input_text", "text": part.text}
