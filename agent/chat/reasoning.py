"""Tells a model's reasoning block from its answer while the text arrives in pieces.

What has come out after some text depends on that text alone, never on how it was cut: a
generation that goes on elsewhere replays its tokens and must arrive at the same place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from agent.chat.markers import (
    MAX_SPACE_CHARS,
    certain_chars,
    chars_before_space,
    first_marker,
    pieces,
    uncertain,
)
from protocol.generation import ContentDelta, ReasoningDelta, TypedDelta

_State = Literal["start", "inside", "after", "answer", "trailing", "content"]


class BlockMarks(Struct, frozen=True, kw_only=True):
    """What stands around the reasoning. None of the openings is the beginning of another."""

    openings: tuple[str, ...]
    closings: tuple[str, ...]
    answer_opening: str = ""
    """May stand around the answer behind a block, with `answer_closing`."""
    answer_closing: str = ""

    @property
    def specials(self) -> tuple[str, ...]:
        """All of them: each may be a control token of the model's."""
        marks = (*self.openings, *self.closings, self.answer_opening, self.answer_closing)
        return tuple(mark for mark in marks if mark)

    def open_in(self, rendered_prompt: str) -> bool:
        """Whether the template has opened the block itself, so that output starts inside it."""
        return rendered_prompt.rstrip().endswith(self.openings)


class BlockSplitter:
    """One generation's text, split into reasoning and content.

    Only a block at the very start counts, with white space before it; a later opening is content.
    White space just inside the block and after it belongs to neither.
    """

    def __init__(self, marks: BlockMarks, *, inside: bool = False) -> None:
        self._marks = marks
        self._state: _State = "inside" if inside else "start"
        self._held = ""
        self._has_begun = False
        """Whether anything came out of the block, or the answer, that is open."""
        self._uncertain = uncertain(marks.closings)
        self._out: list[TypedDelta] = []

    @property
    def inside(self) -> bool:
        """Whether the text so far ends within the block."""
        return self._state == "inside"

    @property
    def done(self) -> bool:
        """Whether everything that follows is content."""
        return self._state == "content"

    def feed(self, text: str) -> list[TypedDelta]:
        """The reasoning and the content that `text` makes certain, in order."""
        if self._is_within_reasoning() and not self._uncertain.search(text):
            return [ReasoningDelta(text)] if text else []
        for piece in pieces(text):
            self._held += piece
            while _TURNS[self._state](self):
                pass
        return self._taken()

    def finish(self) -> list[TypedDelta]:
        """What was held back at the end of the text."""
        held, self._held = self._held, ""
        self._emit(held.rstrip() if self._state == "inside" else held)
        return self._taken()

    def _is_within_reasoning(self) -> bool:
        """Whether nothing is held back, and something came out of the block already."""
        return self._state == "inside" and not self._held and self._has_begun

    def _taken(self) -> list[TypedDelta]:
        out, self._out = self._out, []
        return out

    def _emit(self, text: str) -> None:
        if text:
            self._has_begun = True
            kind = ReasoningDelta if self._state == "inside" else ContentDelta
            self._out.append(kind(text))

    def _start(self) -> bool:
        text = self._held.lstrip()
        openings = self._marks.openings
        opening = next((opening for opening in openings if text.startswith(opening)), "")
        if len(self._held) - len(text) > MAX_SPACE_CHARS:
            self._state = "content"
        elif opening:
            self._state, self._held = "inside", text[len(opening) :]
        elif any(opening.startswith(text) for opening in openings):
            return False
        else:
            self._state = "content"
        return True

    def _inside(self) -> bool:
        return self._up_to(self._marks.closings, "after")

    def _after(self) -> bool:
        self._held = self._held.lstrip()
        opening = self._marks.answer_opening
        if opening and self._held.startswith(opening):
            self._state, self._held = "answer", self._held[len(opening) :]
            self._has_begun = False
        elif not self._held or (opening and opening.startswith(self._held)):
            return False
        else:
            self._state = "content"
        return True

    def _answer(self) -> bool:
        return self._up_to((self._marks.answer_closing,), "trailing")

    def _trailing(self) -> bool:
        self._held = self._held.lstrip()
        if self._held:
            self._state = "content"
        return bool(self._held)

    def _content(self) -> bool:
        self._emit(self._held)
        self._held = ""
        return False

    def _up_to(self, closings: tuple[str, ...], following: _State) -> bool:
        if not self._has_begun:
            self._held = self._held.lstrip()
        at, closing = first_marker(self._held, closings)
        if not closing:
            certain = certain_chars(self._held, *closings)
            self._emit(self._held[:certain])
            self._held = self._held[certain:]
            return False
        self._emit(self._held[: chars_before_space(self._held[:at])])
        self._state, self._held = following, self._held[at + len(closing) :]
        return True


_TURNS: dict[_State, Callable[[BlockSplitter], bool]] = {
    "start": BlockSplitter._start,
    "inside": BlockSplitter._inside,
    "after": BlockSplitter._after,
    "answer": BlockSplitter._answer,
    "trailing": BlockSplitter._trailing,
    "content": BlockSplitter._content,
}
"""A turn of each state; False when it takes more text."""
