"""Finding markers in text that arrives in pieces."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

MAX_SPACE_CHARS = 256
"""White space in front of a marker that may belong to it. What is longer is text: a model that
writes nothing else is not collected."""

PIECE_CHARS = 512
"""What a parser takes at a time: a turn of its looks at all that it holds, and there may be one for
every mark in a text."""


def pieces(text: str) -> Iterator[str]:
    """The text in pieces so small that what is done for each mark in it stays cheap."""
    return (text[at : at + PIECE_CHARS] for at in range(0, len(text), PIECE_CHARS))


def partial_marker_chars(text: str, marker: str) -> int:
    """How many characters at the end of `text` could be the beginning of `marker`."""
    at = text.find(marker[0], max(0, len(text) - len(marker) + 1))
    while at >= 0:
        if marker.startswith(text[at:]):
            return len(text) - at
        at = text.find(marker[0], at + 1)
    return 0


def first_marker(text: str, markers: Iterable[str]) -> tuple[int, str]:
    """Where the first whole marker stands in `text`, and which; (-1, "") if none does."""
    found = min(
        ((at, marker) for marker in markers if (at := text.find(marker)) >= 0), default=None
    )
    return found or (-1, "")


def certain_chars(text: str, *markers: str) -> int:
    """How much of `text`, which holds no whole marker, surely stands before any.

    White space at the end is not certain: it belongs to the marker if that follows.
    """
    partial = max((partial_marker_chars(text, marker) for marker in markers), default=0)
    return chars_before_space(text[: len(text) - partial])


def chars_before_space(text: str) -> int:
    """How much of `text` stands before the white space at its end, as far as that is bounded."""
    return max(len(text.rstrip()), len(text) - MAX_SPACE_CHARS)


@lru_cache(maxsize=64)
def uncertain(markers: tuple[str, ...]) -> re.Pattern[str]:
    """Found in every text of which `certain_chars` would hold something back or in which a marker
    begins: most tokens of an answer are let by at the price of one search."""
    firsts = "".join(sorted({re.escape(marker[0]) for marker in markers}))
    return re.compile(rf"[{firsts}]|\s\Z")
