"""Regular expressions of schemas, so spelt that llguidance lets nothing through that does not fit.

What `\\s`, `\\w` and `\\d` are, JSON Schema leaves to ECMA-262, and validators to the language they
are written in. llguidance has ASCII's; their opposites are kept to what is one everywhere.
"""

from __future__ import annotations

import re

from protocol.invariants import present

_OUTSIDE = re.compile(r"\\[pP](?:\{[^}]*\}|.)|\\.|\[\^?(?:\]|-(?=-))?|.", re.DOTALL)
_INSIDE = re.compile(r"\\.|--|.", re.DOTALL)
_SET_SIGNS = frozenset("[&~")
"""Ordinary characters in a class, but for Rust's regular expressions."""
_WIDEST = {
    r"\s": r"\s\p{Z}\x{85}\x{FEFF}",
    r"\w": r"\w\x{80}-\x{200F}\x{2028}-\x{202F}\x{205F}-\x{209F}\x{20C1}-\x{218F}\x{2400}-\x{24FF}"
    r"\x{2776}-\x{2793}\x{2C00}-\x{3000}\x{3004}-\x{3007}\x{3012}-\x{1F2FF}\x{1FB00}-\x{10FFFF}",
    r"\d": r"\d\p{Nd}",
}
"""Members of a class: all that any language takes for white space, a word's character, a digit.
Of words it is all but punctuation, arrows, symbols and emoji: letter by letter the automata are
too large."""
_NOT = r"^\x00"
"""llguidance 1.9 believes of a class with all control characters in it, as `[^"]` is one, that it
has the quotation mark and the backslash, too. NUL is never written anyway."""


def respelt(pattern: str) -> str:
    """The same pattern, or one that fewer texts fit."""
    pieces: list[str] = []
    place, opening = 0, ""
    while place < len(pattern):
        found = present((_INSIDE if opening else _OUTSIDE).match(pattern, place))
        piece, place = found.group(), found.end()
        if opening:
            pieces.append(_member(piece, is_negated="^" in opening))
            opening = "" if piece == "]" else opening
        elif piece.startswith("["):
            opening = piece
            pieces.append(f"[{_NOT if '^' in piece else ''}{_first_member(piece)}")
        else:
            pieces.append(_opposite(piece))
    return "".join(pieces)


def _first_member(opening: str) -> str:
    """Where a class has its first member a bracket closes nothing, and a hyphen is no range."""
    return f"\\{opening[-1]}" if opening[-1] in "]-" else ""


def _member(piece: str, *, is_negated: bool) -> str:
    """Something in a class. Of one that is negated as much as possible is left out."""
    if piece in _SET_SIGNS:
        return f"\\{piece}"
    if piece == "--":
        return r"-\-"
    return _WIDEST.get(piece, piece) if is_negated else _opposite(piece)


def _opposite(piece: str) -> str:
    if piece.startswith(r"\P"):
        return rf"[{_NOT}\p{piece[2:]}]"
    members = _WIDEST.get(piece.lower()) if piece in (r"\S", r"\W", r"\D") else None
    return f"[{_NOT}{members}]" if members else piece
