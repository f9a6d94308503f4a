"""What a format's tool calls look like as text, plainly enough to make a grammar of it.

An answer with calls is written

    opening before_first CALL (between_calls CALL)* after_last

where CALL is `before_name NAME before_arguments ARGUMENTS after_arguments`, NAME the bare name of a
tool and ARGUMENTS a JSON object or what `tags` say. Parsers take more than this; a grammar need
not.
"""

from __future__ import annotations

from msgspec import Struct


class TagForm(Struct, frozen=True, kw_only=True):
    """ARGUMENTS that are no JSON object but tags: `before_key` KEY `after_key` VALUE `after_value`
    for each of them. A VALUE is JSON, but of a string, which stands as it is up to `value_end`.

    `value_end` is the first thing in `after_value`, or stands behind a line break there.
    """

    before_key: str
    after_key: str
    value_end: str
    after_value: str


class CallForm(Struct, frozen=True, kw_only=True):
    """The texts around names and arguments; each may be empty.

    Any of `specials` that stands in a text may be one control token of the model's, else it is
    text like any other.
    """

    opening: str
    """Where this stands, a call follows; empty: nothing tells a call from other text, it is the
    whole answer."""
    before_first: str = ""
    before_name: str
    is_numbered: bool = False
    """A colon and a number may stand behind the name."""
    before_arguments: str
    after_arguments: str
    between_calls: str | None
    """None: an answer has one call."""
    after_last: str = ""
    specials: tuple[str, ...] = ()
    tags: TagForm | None = None
