"""Texts in Lark: as they stand, as control tokens where a model has them, and what comes before."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agent.grammar.gbnf_to_lark import TokenId

FREE = "FREE: /(?s:.*)/\n"
"""Any text; control tokens are none."""
BLANKS = r"/[ \t\r\n]{1,16}/?"


@dataclass(frozen=True, slots=True)
class TokenNames:
    """Ids by text: of a control token, which has no text of its own; of any token that is the whole
    of a text. `others` are all control tokens that end nothing."""

    control: TokenId
    whole: TokenId
    ends: tuple[int, ...] = ()
    others: tuple[int, ...] = ()


def quoted(text: str) -> str:
    """A regular expression for this very text."""
    return "".join(rf"\x{{{ord(character):X}}}" for character in text)


def marker(text: str, token_id: TokenId) -> str:
    """A symbol for a marker."""
    token = token_id(text)
    return f"/{quoted(text)}/" if token is None else f"<[{token}]>"


def up_to(name: str, text: str, token_id: TokenId) -> str:
    """A rule for free text up to the first marker, with it."""
    token = token_id(text)
    if token is not None:
        return f"{name}: {name.upper()} <[{token}]>\n{name.upper()}: /(?s:.*)/\n"
    return f"{name}[lazy]: /(?s:.*){quoted(text)}/\n"


Pieces = list[int | str]
"""A text: ids of control tokens, and what stands between them."""


def pieces_of(text: str, specials: Sequence[str], tokens: TokenNames) -> Pieces:
    """The text, cut where the model has control tokens for what stands there; without those that
    end an answer: an end may come wherever a grammar ends."""
    ids = {special: tokens.control(special) for special in specials}
    known = sorted((special for special in ids if ids[special] is not None), key=len)
    if not known:
        return [text] if text else []
    cut = re.split(f"({'|'.join(map(re.escape, reversed(known)))})", text)
    pieces: Pieces = []
    for part in filter(None, cut):
        token = ids.get(part)
        if token is None:
            pieces.append(part)
        elif token not in tokens.ends:
            pieces.append(token)
    return pieces


def symbols_of(pieces: Sequence[int | str]) -> str:
    """Symbols for these pieces, one after the other."""
    return " ".join(
        f"<[{piece}]>" if isinstance(piece, int) else f"/{quoted(piece)}/" for piece in pieces
    )


def up_to_pieces(name: str, pieces: Sequence[int | str]) -> str:
    """A rule for free text up to the first of these pieces, with all of them."""
    match pieces:
        case [str() as text, *rest]:
            lexeme = f"{name}_end[lazy]: /(?s:.*){quoted(text)}/\n"
            return f"{name}: {name}_end {symbols_of(rest)}\n{lexeme}"
        case _:
            return f"{name}: {name.upper()} {symbols_of(pieces)}\n{name.upper()}: /(?s:.*)/\n"


def one_of(tokens: Iterable[int]) -> str:
    """A symbol for any of these tokens, of which there is at least one."""
    ranges: list[list[int]] = []
    for token in sorted(tokens):
        if ranges and token == ranges[-1][1] + 1:
            ranges[-1][1] = token
        else:
            ranges.append([token, token])
    return "<[" + ",".join(f"{first}-{last}" for first, last in ranges) + "]>"
