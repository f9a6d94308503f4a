"""Every way in which models write their reasoning, by the name that settings have for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from agent.chat.channels import SPECIALS, ChannelSplitter, block_before
from agent.chat.reasoning import BlockMarks, BlockSplitter
from agent.grammar.reasoning_block import ReasoningBlock
from protocol.generation import TypedDelta


class Splitter(Protocol):
    """One generation's text, split into reasoning and content."""

    @property
    def inside(self) -> bool:
        """Whether the text so far ends within reasoning."""

    @property
    def done(self) -> bool:
        """Whether everything that follows is content."""

    def feed(self, text: str) -> list[TypedDelta]:
        """The reasoning and the content that `text` makes certain, in order."""

    def finish(self) -> list[TypedDelta]:
        """What was held back at the end of the text."""


class ReasoningFormat(Struct, frozen=True, kw_only=True):
    """One way in which models write their reasoning."""

    revision: str
    """Changes whenever the same text would be split differently."""
    template_marks: tuple[str, ...]
    """Any of them in a chat template tells that its model writes so."""
    specials: tuple[str, ...]
    """What may be control tokens of the model's, and must be seen."""
    splitter: Callable[[str], Splitter]
    """Of a rendered prompt, the splitter of what follows it."""
    block: Callable[[str], ReasoningBlock | None]
    """Of a rendered prompt, the block as a grammar must let it by; None: there is none such."""


def _block_format(
    revision: str, template_marks: tuple[str, ...], marks: BlockMarks
) -> ReasoningFormat:
    return ReasoningFormat(
        revision=revision,
        template_marks=template_marks,
        specials=marks.specials,
        splitter=lambda prompt: BlockSplitter(marks, inside=marks.open_in(prompt)),
        block=lambda prompt: ReasoningBlock(
            marks.openings[0], marks.closings[0], marks.open_in(prompt)
        ),
    )


_THINK = BlockMarks(openings=("<think>",), closings=("</think>",))
_MISTRAL = BlockMarks(openings=("[THINK]",), closings=("[/THINK]",))
_GRANITE = BlockMarks(
    openings=("Here is my thought process:", "Here's my thought process:"),
    closings=("Here is my response:", "Here's my response:"),
)
_GRANITE_TAGS = BlockMarks(
    openings=("<think>",),
    closings=("</think>",),
    answer_opening="<response>",
    answer_closing="</response>",
)

REASONING_FORMATS: dict[str, ReasoningFormat] = {
    "harmony": ReasoningFormat(
        revision="harmony-2",
        template_marks=("<|channel|>analysis",),
        specials=SPECIALS,
        splitter=ChannelSplitter,
        block=block_before,
    ),
    "granite": _block_format("granite-1", ("Here is my thought process",), _GRANITE),
    "granite-tags": _block_format("granite-tags-1", ("<response>",), _GRANITE_TAGS),
    "mistral": _block_format("mistral-1", ("[THINK]",), _MISTRAL),
    "think": _block_format("think-2", ("<think>", "</think>"), _THINK),
}
"""In the order in which a template is asked for their marks: the first that is there is it."""


def reasoning_format_of(template: str) -> str:
    """The name of the format that a chat template is for; "": its model does not reason."""
    known = (
        name
        for name, row in REASONING_FORMATS.items()
        if any(mark in template for mark in row.template_marks)
    )
    return next(known, "")
