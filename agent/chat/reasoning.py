"""Tells a model's reasoning block from its answer while the text arrives in pieces.

What has come out after some text depends on that text alone, never on how it was cut: a
generation that goes on elsewhere replays its tokens and must arrive at the same place.
"""

from __future__ import annotations

from typing import Literal

from agent.chat.markers import certain_chars
from agent.grammar.reasoning_block import ReasoningBlock

REVISION = "think-1"
OPEN = "<think>"
CLOSE = "</think>"


def knows_reasoning(template: str) -> bool:
    """Whether a chat template is for a model that thinks in `<think>` blocks."""
    return OPEN in template or CLOSE in template


def opens_reasoning(rendered_prompt: str) -> bool:
    """Whether the template has opened the block itself, so that output starts inside it."""
    return rendered_prompt.rstrip().endswith(OPEN)


def block_around(rendered_prompt: str) -> ReasoningBlock:
    """The block as a grammar must let it by."""
    return ReasoningBlock(OPEN, CLOSE, opens_reasoning(rendered_prompt))


class ReasoningSplitter:
    """One generation's text, split into reasoning and content.

    Only a block at the very start counts, with white space before it; a later `<think>` is
    content. White space just inside the block and after it belongs to neither.
    """

    def __init__(self, *, inside: bool = False) -> None:
        self._state: Literal["start", "inside", "after", "content"] = (
            "inside" if inside else "start"
        )
        self._held = ""
        self._has_reasoned = False

    @property
    def inside(self) -> bool:
        """Whether the text so far ends within the block."""
        return self._state == "inside"

    @property
    def done(self) -> bool:
        """Whether everything that follows is content."""
        return self._state == "content"

    def feed(self, text: str) -> tuple[str, str]:
        """The reasoning and the content, in this order, that `text` makes certain."""
        self._held += text
        if self._state == "start":
            self._start()
        reasoning = self._reason() if self._state == "inside" else ""
        if self._state == "after":
            self._held = self._held.lstrip()
            if self._held:
                self._state = "content"
        if self._state != "content":
            return reasoning, ""
        content, self._held = self._held, ""
        return reasoning, content

    def finish(self) -> tuple[str, str]:
        """What was held back at the end of the text."""
        held, self._held = self._held, ""
        if self._state == "inside":
            return held.rstrip() if self._has_reasoned else held.strip(), ""
        return "", held

    def _start(self) -> None:
        text = self._held.lstrip()
        if text.startswith(OPEN):
            self._state, self._held = "inside", text[len(OPEN) :]
        elif not OPEN.startswith(text):
            self._state = "content"

    def _reason(self) -> str:
        if not self._has_reasoned:
            self._held = self._held.lstrip()
        reasoning, close, rest = self._held.partition(CLOSE)
        if close:
            self._state, self._held = "after", rest
            return reasoning.rstrip()
        certain = certain_chars(self._held, CLOSE)
        self._has_reasoned = self._has_reasoned or certain > 0
        reasoning, self._held = self._held[:certain], self._held[certain:]
        return reasoning
