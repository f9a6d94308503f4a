"""How long what a pattern matches can be. Pure.

For the part of RE2's language (https://github.com/google/re2/wiki/Syntax) whose lengths can be
read off: characters, classes, groups, alternatives, repetitions with an end, anchors.
"""

from __future__ import annotations

import re

MOST_NESTED = 20
_FLAGS = re.compile(r"\(\?[ims]+\)")
_OPENING = re.compile(r"\((?:\?:|\?[ims]+:|\?P<\w+>)?")
_REPEAT = re.compile(r"\{(\d{1,4})(,(\d{0,4}))?\}")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:x\{[0-9A-Fa-f]{1,6}\}|x[0-9A-Fa-f]{2}|[pP](?:\{\^?\w+\}|\w)|[\s\S])")
_ANCHORS = frozenset({"\\b", "\\B", "\\A", "\\z"})
_NOT_READ = frozenset("\\" + one for one in "CQEKRXGZ0123456789")


class UnreadableLength(Exception):
    """The text says what is in the way."""


def lengths(pattern: str) -> tuple[int, int]:
    """The fewest and the most characters of a match. Raises `UnreadableLength`."""
    reader = _Reader(pattern)
    found = reader.alternatives(0)
    if reader.rest:
        raise UnreadableLength(f"there is a {reader.rest[0]!r} too many")
    return found


class _Reader:
    def __init__(self, pattern: str) -> None:
        flags = _FLAGS.match(pattern)
        self.rest = pattern[flags.end() :] if flags else pattern

    def alternatives(self, depth: int) -> tuple[int, int]:
        if depth > MOST_NESTED:
            raise UnreadableLength(f"its groups are nested more than {MOST_NESTED} deep")
        found = [self._sequence(depth)]
        while self.rest.startswith("|"):
            self.rest = self.rest[1:]
            found.append(self._sequence(depth))
        return min(least for least, _ in found), max(most for _, most in found)

    def _sequence(self, depth: int) -> tuple[int, int]:
        least = most = 0
        while self.rest and self.rest[0] not in "|)":
            one_least, one_most = self._repeated(self._piece(depth))
            least, most = least + one_least, most + one_most
        return least, most

    def _piece(self, depth: int) -> tuple[int, int]:
        if self.rest[0] == "(":
            return self._group(depth)
        if self.rest[0] in "^$":
            self.rest = self.rest[1:]
            return 0, 0
        if self.rest[0] in "*+?":
            raise UnreadableLength(f"there is nothing before {self.rest[0]!r}")
        if self.rest[0] == "[":
            self._taken(_CLASS, "a [ is not closed")
            return 1, 1
        if self.rest[0] == "\\":
            return self._escape()
        self.rest = self.rest[1:]
        return 1, 1

    def _group(self, depth: int) -> tuple[int, int]:
        opening = self._taken(_OPENING, "a group cannot be read")
        if self.rest.startswith("?"):
            raise UnreadableLength(f"{opening}{self.rest[:2]} is not known here")
        found = self.alternatives(depth + 1)
        if not self.rest.startswith(")"):
            raise UnreadableLength("a ( is not closed")
        self.rest = self.rest[1:]
        return found

    def _escape(self) -> tuple[int, int]:
        escape = self._taken(_ESCAPE, "there is nothing behind the last \\")
        if escape[:2] in _NOT_READ:
            raise UnreadableLength(f"{escape[:2]} is not known here")
        return (0, 0) if escape in _ANCHORS else (1, 1)

    def _repeated(self, piece: tuple[int, int]) -> tuple[int, int]:
        """Of (?: … ) without content nothing can be repeated that counts."""
        if not self.rest or self.rest[0] not in "*+?{":
            return piece
        least, most = 0, 1
        if self.rest[0] in "*+":
            raise UnreadableLength(
                f"{self.rest[0]} has no end; say how often at most, as in {{1,64}}"
            )
        if self.rest[0] == "?":
            self.rest = self.rest[1:]
        else:
            least, most = self._times()
        if self.rest.startswith("?"):  # of two the shorter first: as long at most
            self.rest = self.rest[1:]
        return piece[0] * least, piece[1] * most

    def _times(self) -> tuple[int, int]:
        found = _REPEAT.match(self.rest)
        if found is None:
            raise UnreadableLength("write \\{ for the character {")
        self.rest = self.rest[found.end() :]
        if found[2] is None:
            return int(found[1]), int(found[1])
        if not found[3]:
            raise UnreadableLength(f"{found[0]} has no end; say how often at most")
        return int(found[1]), int(found[3])

    def _taken(self, what: re.Pattern[str], problem: str) -> str:
        found = what.match(self.rest)
        if found is None:
            raise UnreadableLength(problem)
        self.rest = self.rest[found.end() :]
        return found[0]
