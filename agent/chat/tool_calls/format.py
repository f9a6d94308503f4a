"""A format of tool calls: a row of the table that has them all."""

from __future__ import annotations

import re
from collections.abc import Callable

from msgspec import Struct

from agent.grammar.call_form import CallForm


class Tagged(Struct, frozen=True, kw_only=True):
    """Arguments between tags: `before_key` KEY `key_end` VALUE `after_value`, as many as there are,
    and `close` behind the last. Text between them is nothing."""

    head: re.Pattern[str]
    """Matches all that stands between opening and arguments; has a group `name`."""
    head_end: re.Pattern[str]
    """Where that ends: there the first match does."""
    before_key: str
    key_end: re.Pattern[str]
    after_value: str
    close: str
    soft_closes: tuple[str, ...] = ()
    """They end a call, too, and are looked at again behind it."""
    has_lines: bool = False
    """A line break behind the tag in front of a value, and one in front of that behind it, are no
    part of the value."""


class Writing(Struct, frozen=True, kw_only=True):
    """How calls of a format are written, in as many ways as its parser takes.

    Behind an opening stands one call as a JSON object with its name and arguments (`objects`), a
    list of such (`lists`), or a name with the arguments behind it, as JSON (`named`) or `tagged`.
    """

    openings: tuple[str, ...]
    """None of them is the beginning of another."""
    is_sure: bool = True
    """An opening says that a call follows: what is known of it is streamed. Else a call is told
    when all of it is there, and an answer may begin with one that has no opening."""
    objects: bool = False
    lists: bool = False
    tagged: Tagged | None = None
    named: re.Pattern[str] | None = None
    """Matches all that stands between opening and arguments; has a group `name` and no brace."""
    stop: str = ""
    """Ends a call whose JSON is broken."""
    endings: tuple[str, ...] = ()
    """What may stand behind a call and says nothing; none is the beginning of another."""
    separators: tuple[str, ...] = ()
    """What may stand between two calls beside white space."""


class ToolFormat(Struct, frozen=True, kw_only=True):
    """One way in which models write tool calls."""

    revision: str
    """Changes whenever the same text would be parsed, or be held to a grammar, differently."""
    form: CallForm
    writing: Writing
    knows_tool_calls: Callable[[str], bool]
    """Whether a chat template is for a model that writes this format."""
    has_short_ids: bool = False
    """The templates take ids of nine letters and digits, no others."""
