"""Harmony's channels, as gpt-oss writes them, told apart while the text arrives in pieces.

A message is a header up to `<|message|>` and a body. The analysis channel is reasoning, what goes
to a recipient (a call) is left as it is, header and all, for the parser of tool calls; all else is
content. As in `agent.chat.reasoning`, output depends on the text alone, never on how it was cut.
"""

from __future__ import annotations

from typing import Literal

from agent.chat.markers import MAX_SPACE_CHARS, first_marker, partial_marker_chars, pieces
from agent.chat.tool_calls.harmony import (
    CALL,
    CHANNEL,
    CONSTRAIN,
    END,
    MESSAGE,
    RETURN,
    START,
    TO_FUNCTIONS,
)
from agent.grammar.reasoning_block import ReasoningBlock
from protocol.generation import ContentDelta, ReasoningDelta, TypedDelta

SPECIALS = (START, CHANNEL, CONSTRAIN, MESSAGE, END, RETURN, CALL)
MAX_HEADER_CHARS = 1024
"""A header without an end is text."""

_ROLE = "assistant"
_ANALYSIS = f"{CHANNEL}analysis"
_RECIPIENT = "to="
_HEADER_BEGINS = (START, CHANNEL, MESSAGE, TO_FUNCTIONS)
_BODY_ENDS = (END, RETURN, CALL, START, CHANNEL)
_BAR = "<"
"""All of these begin with it."""

_Kind = Literal["reasoning", "content", "recipient"]


class ChannelSplitter:
    """One generation's text, split into reasoning and content.

    Messages of one kind are kept apart by a line break.
    """

    done = False
    """Reasoning may follow at any time."""

    def __init__(self, rendered_prompt: str) -> None:
        """The prompt may end within a message, even within its body."""
        opened = rendered_prompt.rpartition(START)[2]
        header, message, _ = opened.partition(MESSAGE)
        self._in_header = not message
        self._kind: _Kind = _kind_of(header) if message else "content"
        self._held = ""
        self._told: set[_Kind] = set()
        self._needs_break = False
        self._out: list[TypedDelta] = []

    @property
    def inside(self) -> bool:
        """Whether the text so far ends within reasoning."""
        return not self._in_header and self._kind == "reasoning"

    def feed(self, text: str) -> list[TypedDelta]:
        """The reasoning and the content that `text` makes certain, in order."""
        for piece in pieces(text):
            self._held += piece
            while self._header() if self._in_header else self._body():
                pass
        return self._taken()

    def finish(self) -> list[TypedDelta]:
        """What was held back at the end of the text; a header that was cut off is left out."""
        held, self._held = self._held, ""
        if self._in_header and not held.lstrip().startswith(_HEADER_BEGINS):
            self._begin("content")
        if not self._in_header:
            self._emit(held)
        return self._taken()

    def _taken(self) -> list[TypedDelta]:
        out, self._out = self._out, []
        return out

    def _header(self) -> bool:
        """Take a header with its end; what does not begin like one is content."""
        text = self._held.lstrip()
        if len(self._held) - len(text) > MAX_SPACE_CHARS:
            self._begin("content")
        elif not text.startswith(_HEADER_BEGINS):
            if any(begin.startswith(text) for begin in _HEADER_BEGINS):
                return False
            self._begin("content")
        else:
            return self._up_to_message()
        return True

    def _up_to_message(self) -> bool:
        header, message, _ = self._held[:MAX_HEADER_CHARS].partition(MESSAGE)
        if not message and len(header) < MAX_HEADER_CHARS:
            return False
        taken = self._held[: len(header) + len(message)]
        self._held = self._held[len(taken) :]
        self._begin(_kind_of(header) if message else "content")
        if self._kind == "recipient" or not message:
            self._emit(taken)
        return True

    def _body(self) -> bool:
        """Take a message's text up to its end, or to the next header where it has none."""
        if _BAR not in self._held:
            self._emit(self._held)
            self._held = ""
            return False
        at, mark = first_marker(self._held, _BODY_ENDS)
        if not mark:
            partial = max(partial_marker_chars(self._held, end) for end in _BODY_ENDS)
            certain = len(self._held) - partial
            self._emit(self._held[:certain])
            self._held = self._held[certain:]
            return False
        is_next = mark in (START, CHANNEL)
        end = at if is_next else at + len(mark)
        self._emit(self._held[: end if self._kind == "recipient" else at])
        self._held = self._held[end:]
        self._in_header = True
        return True

    def _begin(self, kind: _Kind) -> None:
        self._in_header = False
        self._kind = kind
        self._needs_break = kind in self._told and kind != "recipient"

    def _emit(self, text: str) -> None:
        if not text:
            return
        if self._needs_break:
            text = "\n" + text
        self._needs_break = False
        self._told.add(self._kind)
        kind = ReasoningDelta if self._kind == "reasoning" else ContentDelta
        self._out.append(kind(text))


def block_before(rendered_prompt: str) -> ReasoningBlock | None:
    """What may stand before an answer that is held to a grammar, with the answer's own header;
    None: the prompt ends within a message that is no thought, or in no message at all."""
    header, message, _ = rendered_prompt.rpartition(START)[2].partition(MESSAGE)
    is_open = bool(message) and _kind_of(header) == "reasoning"
    if not is_open and (message or header.strip() != _ROLE):
        return None
    return ReasoningBlock(
        opening=f"{_ANALYSIS}{MESSAGE}",
        closing=f"{END}{START}{_ROLE}",
        is_open=is_open,
        answer_opening=f"{CHANNEL}final{MESSAGE}",
        specials=SPECIALS,
    )


def _kind_of(header: str) -> _Kind:
    if f" {_RECIPIENT}" in header or header.lstrip().startswith(_RECIPIENT):
        return "recipient"
    return "reasoning" if _ANALYSIS in header else "content"
