"""The part of a model's answer that no grammar speaks about."""

from __future__ import annotations

from msgspec import Struct


class ReasoningBlock(Struct, frozen=True, array_like=True):
    """A model's reasoning, between its markers. The grammar binds after it, white space between.

    `is_open`: the prompt ends inside of it. Else the answer may begin with it, or do without.
    """

    opening: str
    closing: str
    is_open: bool = False
    answer_opening: str = ""
    """Where a model writes messages on channels: what stands before a text that is no thought and
    no call. There may be several blocks then; without an `opening`, none."""
    specials: tuple[str, ...] = ()
    """Any of these that stands in one of the texts may be a control token of the model's; empty:
    each text may be one as a whole."""
