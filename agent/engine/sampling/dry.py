"""DRY, "don't repeat yourself": the longer the repetition a token would prolong, the less likely.

The formula is llama.cpp's: multiplier * base ^ (length - allowed length) off the logit. The code is
ours, because llama.cpp's reads the whole vocabulary for every sequence breaker of every call (17 to
30 ms each at 131k tokens, on the engine's one thread). Here breakers are looked for in the text as
it grows. All state is a function of the tokens accepted: the prompt's, which count, as they do
wherever DRY is offered, and then the generated ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import numpy as np
from numpy.typing import NDArray

from agent.engine.frames import Sampling
from agent.engine.sampling.draws import Floats

_LOG_MAX_FLOAT = 88.7228391
_MAX_PENALTY = 1e9


def is_dry(sampling: Sampling) -> bool:
    """Whether a request asks for it."""
    return sampling.dry_multiplier > 0 and sampling.dry_penalty_last_n > 0


class Dry:
    """The last tokens of one call, and how much of their end each earlier place repeats.

    `pieces` are the bytes of every token, control tokens' too.
    """

    def __init__(self, sampling: Sampling, pieces: Sequence[bytes]) -> None:
        self._multiplier = sampling.dry_multiplier
        self._base = sampling.dry_base
        self._allowed = sampling.dry_allowed_length
        self._window = sampling.dry_penalty_last_n
        self._pieces = pieces
        breakers = sampling.dry_sequence_breakers
        self._breakers = [text.encode("utf-8", "replace") for text in breakers]
        self._reach = max(map(len, self._breakers), default=1) - 1
        self._tokens = np.zeros(2 * self._window, dtype=np.int32)
        self._runs = np.zeros(2 * self._window, dtype=np.int32)
        """For each place: how many tokens up to it equal those up to the end. Up to date for the
        first `_known` tokens, as if these were all."""
        self._end = 0
        self._known = 0
        self._since_breaker = 0
        self._tail = b""

    def accept(self, token: int) -> None:
        """The token is part of the text now."""
        if self._end == len(self._tokens):
            self._move()
        self._tokens[self._end] = token
        self._end += 1
        self._since_breaker = 0 if self._ends_breaker(token) else self._since_breaker + 1

    def apply(self, row: Floats) -> None:
        """Take the penalties off the logits."""
        count = min(self._end, self._window)
        limit = min(self._since_breaker, count)
        if count <= self._allowed or limit < self._allowed:
            return
        lengths = np.minimum(self._up_to_date_runs(count), np.arange(1, count, dtype=np.int32))
        places = np.flatnonzero(lengths >= self._allowed)
        if not len(places):
            return
        lengths = np.minimum(lengths[places], limit)
        next_tokens = self._tokens[self._end - count + 1 :][places]
        rising = np.argsort(lengths, kind="stable")
        longest = dict(zip(next_tokens[rising].tolist(), lengths[rising].tolist(), strict=True))
        for token, length in longest.items():
            if not self._is_breaker(token):
                row[token] -= self._penalty(length)

    def _penalty(self, length: int) -> float:
        exponent = length - self._allowed
        if self._base > 1.000001:
            exponent = min(exponent, int(_LOG_MAX_FLOAT / log(self._base)))
        return min(self._multiplier * self._base**exponent, _MAX_PENALTY)

    def _up_to_date_runs(self, count: int) -> NDArray[np.int32]:
        """The runs of all places of the window but the last."""
        first = self._end - count
        if self._known == self._end - 1 and count > 1:
            # a place repeats one more if the token there is the new one, else nothing
            same = self._tokens[first + 1 : self._end - 1] == self._tokens[self._end - 1]
            longer = (self._runs[first : self._end - 2] + 1) * same
            self._runs[first + 1 : self._end - 1] = longer
            self._runs[first] = self._tokens[first] == self._tokens[self._end - 1]
        elif self._known != self._end:
            window = self._tokens[first : self._end].tolist()
            self._runs[first : self._end] = _repeated_ends(window)
        self._known = self._end
        return self._runs[first : self._end - 1]

    def _ends_breaker(self, token: int) -> bool:
        """Whether a sequence breaker ends inside the token's text."""
        piece = self._pieces[token]
        if not piece or not self._breakers:
            return False
        text = self._tail + piece
        self._tail = text[-self._reach :] if self._reach else b""
        return any(breaker in text[-len(piece) - len(breaker) + 1 :] for breaker in self._breakers)

    def _is_breaker(self, token: int) -> bool:
        piece = self._pieces[token]
        return any(breaker in piece for breaker in self._breakers)

    def _move(self) -> None:
        """Keep the window only, at the beginning of the arrays."""
        for array in (self._tokens, self._runs):
            array[: self._window] = array[self._end - self._window : self._end]
        self._known -= self._end - self._window
        self._end = self._window


def _repeated_ends(tokens: list[int]) -> list[int]:
    """For each place, how many tokens up to it equal those up to the end. Linear: Z-algorithm."""
    text = tokens[::-1]
    count = len(text)
    lengths = [0] * count
    if count:
        lengths[0] = count
    left = right = 0
    for start in range(1, count):
        length = min(lengths[start - left], right - start) if start < right else 0
        while start + length < count and text[length] == text[start + length]:
            length += 1
        lengths[start] = length
        if start + length > right:
            left, right = start, start + length
    return lengths[::-1]
