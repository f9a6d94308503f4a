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
