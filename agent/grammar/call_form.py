"""What a format's tool calls look like as text, plainly enough to make a grammar of it.

An answer with calls is written

    opening before_first CALL (between_calls CALL)* after_last

where CALL is `before_name NAME before_arguments ARGUMENTS after_arguments`, ARGUMENTS a JSON object
and NAME the bare name of a tool. Parsers take more than this; a grammar need not.
"""

from __future__ import annotations

from msgspec import Struct


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
    before_arguments: str
    after_arguments: str
    between_calls: str | None
    """None: an answer has one call."""
    after_last: str = ""
    specials: tuple[str, ...] = ()
