"""Rules that rewrite texts: what each looks for, and how it is found.

Patterns are RE2's, whose time grows with the text alone, whatever the pattern and the text are.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal

from msgspec import Struct

try:
    import re2
except ImportError:  # an extra: few have rules
    re2 = None

Where = Literal["prompt", "answer", "both"]

_MEMORY_BYTES = 8 << 20
"""Of one pattern's automaton."""


class TextRule(Struct, frozen=True, kw_only=True):
    """What is replaced where."""

    name: str
    pattern: str
    replace: str
    where: Where = "both"
    longest: int
    """Characters that a match has at most."""


class PatternFault(Exception):
    """A pattern that cannot be used; the text says why."""


@lru_cache(256)
def compiled(pattern: str) -> Any:
    """RE2's matcher. Raises `PatternFault`."""
    if re2 is None:
        raise PatternFault("it needs the package google-re2: pip install 'paddler-py[sanitise]'")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MEMORY_BYTES
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0] if error.args else error
        words = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise PatternFault(words) from error


class RuleStream:
    """One rule on a text that comes in pieces, wherever these are cut: what comes out is what the
    rule makes of the whole. Held back are at most as many characters as a match can have."""

    __slots__ = ("_find", "_held", "_longest", "_replace", "_start")

    def __init__(self, rule: TextRule) -> None:
        self._find = compiled(rule.pattern).finditer
        self._replace = rule.replace
        self._longest = rule.longest
        self._held = ""
        self._start = 0
        """Before it stands what has gone out, as `\\b` looks at what is before."""

    def feed(self, text: str) -> str:
        """What of it, and of what was held, can go out."""
        held = self._held + text
        # a match that begins before this ends before the end, and what stands behind it is there
        return self._rewritten(held, settled=len(held) - self._longest)

    def flush(self) -> str:
        """The rest. What comes after it is another text."""
        rest = self._rewritten(self._held, settled=len(self._held))
        self._held, self._start = "", 0
        return rest

    def _rewritten(self, held: str, *, settled: int) -> str:
        out, position = [], self._start
        for start, end in self._matches(held, position, settled):
            out.append(held[position:start])
            out.append(self._replace)
            position = end
        if settled > position:
            out.append(held[position:settled])
            position = settled
        self._start = min(position, 1)
        self._held = held[position - self._start :]
        return "".join(out)

    def _matches(self, held: str, position: int, settled: int) -> Iterator[tuple[int, int]]:
        if settled <= position:
            return
        for match in self._find(held, position):
            start, end = match.span()
            if start >= settled:
                return
            yield start, end


class RewrittenText:
    """Rules one after the other on a text that comes in pieces."""

    __slots__ = ("_streams",)

    def __init__(self, rules: tuple[TextRule, ...]) -> None:
        self._streams = [RuleStream(rule) for rule in rules]

    def feed(self, text: str) -> str:
        """What can go out."""
        for stream in self._streams:
            text = stream.feed(text)
        return text

    def flush(self) -> str:
        """The rest."""
        text = ""
        for stream in self._streams:
            text = stream.feed(text) + stream.flush()
        return text
