"""Guessing a call's next tokens, so that one decode can check several. Pure; decodes nothing.

A draft changes no output: each of its tokens counts only if sampling from the model's own logits
chose it. `Speculation` is what a call has; `NgramDrafter` guesses that what once followed the last
few tokens follows them again (prompt lookup: copies, quotations, code being edited, JSON keys).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agent.engine.pace import MOST_DRAFTED, Pace

Ints = NDArray[np.int32]

LEAST_MATCH = 2
"""Tokens that must agree. With 1, a counting answer makes 550 useless drafts in 1000 tokens."""
LONGEST_MATCH = 16
MOST_PLACES = 256
"""Of those where the last two tokens stood before, the latest: pairs like `: "` are everywhere."""
TRUST = 2
"""Drafted tokens for each that agreed: short matches are right for a token or two, if at all."""
WINDOW = 65536
"""Tokens that are searched, the last ones: 30 to 70 µs if all of them are there."""
PATIENCE = 2
LONGEST_REST = 8
"""Tokens for which nothing is guessed, one more after each `PATIENCE` guesses in vain."""

_NONE: Ints = np.zeros(0, dtype=np.int32)


class Drafter(Protocol):
    """Guesses how one text goes on."""

    def draft(self, most: int) -> Ints:
        """Up to `most` tokens that may come next, maybe none."""
        ...

    def accept(self, tokens: Sequence[int]) -> None:
        """Take the tokens that really came."""
        ...


class NgramDrafter:
    """Drafts what followed the latest of the longest earlier matches of the text's end.

    No index: comparing one number with the whole text takes numpy 2 µs for 1000 tokens, 10 for
    8000, and nothing while nobody drafts. A table of n-grams costs 1 µs a token, 30 ms when a
    prompt of 32,000 tokens comes, and 100 times the memory. `ends` are tokens to draft no further
    than.
    """

    def __init__(self, known: Ints, *, ends: Collection[int] = ()) -> None:
        self._ends = ends
        self._length = min(len(known), WINDOW)
        self._text = np.empty(2 * max(self._length, 256), dtype=np.int32)
        self._text[: self._length] = known[len(known) - self._length :]

    @property
    def size(self) -> int:
        """Tokens there is room for, at most twice the window."""
        return len(self._text)

    def draft(self, most: int) -> Ints:
        """The likeliest next tokens, at most twice as many as agreed."""
        start, agreed = self._match() if most > 0 else (0, 0)
        if agreed < LEAST_MATCH:
            return _NONE
        follows = self._text[start : self._length]
        count = min(most, TRUST * agreed)
        if len(follows) < count:  # the match reaches into the end: what repeats, repeats
            follows = np.tile(follows, -(-count // len(follows)))
        return self._until_end(follows[:count])

    def accept(self, tokens: Sequence[int]) -> None:
        """Append to the text; beyond twice the window its beginning is dropped."""
        for start in range(0, len(tokens), WINDOW):
            self._append(tokens[start : start + WINDOW])

    def _append(self, tokens: Sequence[int]) -> None:
        after = self._length + len(tokens)
        if after > len(self._text):
            kept = self._text[max(self._length - WINDOW, 0) : self._length]
            self._text = np.empty(2 * min(len(kept) + len(tokens), WINDOW), dtype=np.int32)
            self._text[: len(kept)] = kept
            self._length, after = len(kept), len(kept) + len(tokens)
        self._text[self._length : after] = tokens
        self._length = after

    def _until_end(self, tokens: Ints) -> Ints:
        for at, token in enumerate(tokens.tolist()):
            if token in self._ends:
                return tokens[: at + 1]
        return tokens

    def _match(self) -> tuple[int, int]:
        """Where the text went on after the best match of its end, and how many tokens agreed."""
        text = self._text[max(self._length - WINDOW, 0) : self._length]
        last = len(text) - 1
        if last < LEAST_MATCH:
            return 0, 0
        places = np.flatnonzero(text[1:last] == text[last]) + 1
        places = places[text[places - 1] == text[last - 1]][-MOST_PLACES:]
        if not len(places):
            return 0, 0
        back = np.arange(min(LONGEST_MATCH, last))
        # before the beginning the index wraps around: what agrees there does not count
        differs = text[places[:, None] - back] != text[last - back]
        agreed = np.where(differs.any(axis=1), differs.argmax(axis=1), len(back))
        agreed = np.minimum(agreed, places + 1)
        best = len(places) - 1 - int(agreed[::-1].argmax())
        return self._length - last + int(places[best]), int(agreed[best])


class Speculation:
    """One call's drafting: what (a `Drafter`), how much (`Pace`), and how right it was.

    A step: `allowance`, `draft`, decode and sample, `accept`. What was guessed but not checked is
    compared with what comes all the same: that costs no decode, and shows when drafting pays.
    `is_dear`: the drafter decodes, too, and is asked for no more than is checked.
    """

    def __init__(self, drafter: Drafter, pace: Pace, *, is_dear: bool = False) -> None:
        self._drafter = drafter
        self._pace = pace
        self._is_dear = is_dear
        self._guess: Ints = _NONE
        self._in_vain = 0
        self._rest = 0

    def allowance(self, *, busy_slots: int, slots: int) -> int:
        """Guess, and say how many of the guessed tokens are worth checking in this step.

        `busy_slots` are those that decode in it, this call's among them.
        """
        self._guess = _NONE
        most = MOST_DRAFTED
        if not self._is_dear:
            most = self._guessed(busy_slots, slots)
        return self._pace.allowance(busy_slots=busy_slots, slots=slots, most=most) if most else 0

    def draft(self, most: int) -> Ints:
        """The first `most` (>= 0) of the guessed tokens, maybe fewer."""
        if self._is_dear and most:
            self._guess = self._drafter.draft(most)
        return self._guess[:most]

    def accept(self, tokens: Sequence[int]) -> None:
        """The tokens that were sampled in this step: right guesses, and the one that came then."""
        self._drafter.accept(tokens)
        guess, self._guess = self._guess.tolist(), _NONE
        compared = min(len(guess), len(tokens))
        if compared:
            pairs = enumerate(zip(guess, tokens, strict=False))
            right = next((at for at, (one, other) in pairs if one != other), compared)
            self._pace.verified(compared, right)
            if right:
                self._in_vain = 0
            else:
                self._guessed_in_vain()

    def _guessed(self, busy_slots: int, slots: int) -> int:
        if self._pace.is_full(busy_slots=busy_slots, slots=slots):
            return 0
        if self._rest:
            self._rest -= 1
            return 0
        self._guess = self._drafter.draft(MOST_DRAFTED)
        if not len(self._guess):
            self._guessed_in_vain()
        return len(self._guess)

    def _guessed_in_vain(self) -> None:
        """Guess less and less often: each time takes 10 to 30 µs."""
        self._in_vain += 1
        self._rest = min(self._in_vain // PATIENCE, LONGEST_REST)
