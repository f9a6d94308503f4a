"""A grammar that binds from an opening on: up to there a call is one of free text, nearly.

The grammar has a rule for the free text, so that it could be asked about each token. It is not:
tokens that it surely allows are told to it in bundles, and whether they are sure is a look at the
last few bytes. It sees the same tokens in the same order, so its state is what it always was.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from llguidance import LLMatcher
from numpy.typing import NDArray

from agent.engine.sampling.grammar_constraint import GrammarConstraint, Ints
from agent.errors import OutsideGrammar

BUNDLE = 64
"""Tokens told at once: about 0.2 ms."""


class LazyConstraint(GrammarConstraint):
    """One call's grammar with its opening: an `agent.engine.sampling.constraint.Constraint`.

    Sure are tokens of whole characters that do not complete the opening. About all others the
    grammar is asked: control tokens and ends, which may not stand in reasoning, parts of
    characters, and from the opening on everything.
    """

    def __init__(
        self,
        matcher: LLMatcher,
        ends: Ints,
        vocabulary_size: int,
        *,
        opening: str,
        pieces: Sequence[bytes],
        shown_pieces: Sequence[bytes],
    ) -> None:
        """`pieces` are the bytes of text of every token, `shown_pieces` those of control tokens,
        too."""
        super().__init__(matcher, ends, vocabulary_size)
        self._opening = opening.encode()
        self._pieces = pieces
        self._shown_pieces = shown_pieces
        self._tail = b""
        """What of the last tokens may be the beginning of the opening."""
        self._is_asleep = True
        self._is_whole = True
        """Whether the text so far surely ends with a whole character."""
        self._untold: list[int] = []

    @property
    def is_asleep(self) -> bool:
        """Whether the opening is still to come."""
        return self._is_asleep

    def passes(self, token: int) -> bool:
        """Accept a token if that is next to nothing; False: nothing was done."""
        if len(self._untold) >= BUNDLE or not self._is_sure(token):
            return False
        self._take(token)
        return True

    def allows(self, token: int) -> bool:
        """Whether the token may come next."""
        if self._is_sure(token):
            return True
        self._tell()
        return super().allows(token)

    def mask(self) -> NDArray[np.bool_]:
        """Which tokens may come next, [vocabulary]; at least one."""
        self._tell()
        return super().mask()

    def accept(self, token: int) -> None:
        """The token was chosen, here or elsewhere."""
        if self._is_sure(token):
            self._take(token)
            if len(self._untold) >= BUNDLE:
                self._tell()
            return
        self._tell()
        super().accept(token)
        if self._is_asleep:
            self._is_whole = _is_whole(self._pieces[token])
            self._follow(self._shown_pieces[token])

    def rollback(self, count: int) -> None:
        """Undo the last `count` accepts; from then on the grammar is asked about every token."""
        self._tell()
        self._is_asleep = False
        super().rollback(count)

    @property
    def is_complete(self) -> bool:
        """Whether nothing but an end token may follow."""
        return not self._is_asleep and super().is_complete

    def _is_sure(self, token: int) -> bool:
        if not (self._is_asleep and self._is_whole) or token in self._end_set:
            return False
        piece = self._pieces[token]
        if not piece or not _is_whole(piece):
            return False
        return self._opening not in self._tail + piece

    def _take(self, token: int) -> None:
        self._untold.append(token)
        self._follow(self._pieces[token])

    def _follow(self, piece: bytes) -> None:
        text = self._tail + piece
        self._is_asleep = self._opening not in text
        keep = len(self._opening) - 1
        self._tail = text[-keep:] if keep else b""

    def _tell(self) -> None:
        """Bring the grammar where the text is."""
        if not self._untold:
            return
        untold, self._untold = self._untold, []
        taken = self._matcher.try_consume_tokens(untold)
        self._accepted += taken
        if taken < len(untold):
            self._raise_if_broken()
            raise OutsideGrammar(f"Token {untold[taken]} is not what the grammar allows there.")


def _is_whole(piece: bytes) -> bool:
    """Whether these bytes are whole characters."""
    if piece.isascii():
        return True
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True
