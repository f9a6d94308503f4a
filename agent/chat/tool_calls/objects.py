"""Follows JSON to the end of an object while its text arrives in pieces. Checks nothing else."""

from __future__ import annotations

import re
from functools import lru_cache

_INSIDE_STRING = re.compile(r'["\\]')


@lru_cache(maxsize=32)
def _outside_string(stop: str) -> re.Pattern[str]:
    return re.compile(r'["{}\[\]' + re.escape(stop[:1]) + "]")


class ObjectScanner:
    """Counts brackets outside of strings until as many are closed as were open.

    `depth`: how many are open before the text begins. A `stop` outside of strings ends the object,
    too: its JSON is broken.
    """

    def __init__(self, *, depth: int = 0, stop: str = "") -> None:
        self._depth = depth
        self._stop = stop
        self._outside = _outside_string(stop)
        self._in_string = False
        self._skips_next = False
        self.has_ended = False

    def feed(self, text: str) -> int:
        """How many characters of `text` belong to the object. Those behind them are to be fed
        again, with more; or, once it `has_ended`, they follow it."""
        at = 0
        while at < len(text) and not self.has_ended:
            if self._skips_next:
                self._skips_next = False
                at += 1
                continue
            found = (_INSIDE_STRING if self._in_string else self._outside).search(text, at)
            if found is None:
                return len(text)
            at = found.start()
            step = self._step(text, at)
            if step == 0:
                return at
            at += step
        return at

    def _step(self, text: str, at: int) -> int:
        """Take the character at `at`; how many were taken, 0 if the stop may or does begin here."""
        character = text[at]
        if character == "\\":
            self._skips_next = True
        elif character == '"':
            self._in_string = not self._in_string
        elif self._stop and self._stop.startswith(part := text[at : at + len(self._stop)]):
            self.has_ended = part == self._stop
            return 0
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
            self.has_ended = self._depth <= 0
        return 1
