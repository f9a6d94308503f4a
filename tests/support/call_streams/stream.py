"""A text as a model writes it, and what a client must be given of it, written by hand."""

from __future__ import annotations

from typing import NamedTuple


class Call(NamedTuple):
    """A tool call."""

    name: str
    arguments: str


class Thought(NamedTuple):
    """Reasoning."""

    text: str


class Stream(NamedTuple):
    """`gives` in order: content as plain text, calls, reasoning."""

    about: str
    text: str
    gives: tuple[str | Call | Thought, ...]


def as_text(about: str, text: str) -> Stream:
    """A text that is content as it stands."""
    return Stream(about, text, (text,) if text else ())


TOOLS = frozenset({"get_weather", "add", "write_file", "ping"})
"""What is on offer."""
