"""Presence, frequency and repeat penalties over the last generated tokens, never the prompt's.

llama.cpp's formula, on the tokens it concerns only: a pass over 131k candidates costs 1.1 ms. All
state is a function of the tokens accepted.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from agent.engine.frames import Sampling
from agent.engine.sampling.draws import Floats


def is_penalised(sampling: Sampling) -> bool:
    """Whether a request asks for any."""
    penalties = (sampling.presence_penalty, sampling.frequency_penalty, sampling.repeat_penalty)
    return sampling.penalty_last_n > 0 and penalties != (0.0, 0.0, 1.0)


class Penalties:
    """How often each of one call's last `penalty_last_n` tokens stands among them."""

    def __init__(self, sampling: Sampling) -> None:
        self._presence = np.float32(sampling.presence_penalty)
        self._frequency = np.float32(sampling.frequency_penalty)
        self._repeat = np.float32(sampling.repeat_penalty)
        self._window = sampling.penalty_last_n
        self._last: deque[int] = deque()
        self._counts: dict[int, int] = {}

    def accept(self, token: int) -> None:
        """The token was generated."""
        counts = self._counts
        self._last.append(token)
        counts[token] = counts.get(token, 0) + 1
        if len(self._last) > self._window:
            oldest = self._last.popleft()
            counts[oldest] -= 1
            if not counts[oldest]:
                del counts[oldest]

    def apply(self, row: Floats) -> None:
        """Take the penalties off the logits."""
        if not self._counts:
            return
        ids = np.fromiter(self._counts, dtype=np.intp, count=len(self._counts))
        logits = row[ids]
        if self._repeat != 1:
            logits = np.where(logits > 0, logits / self._repeat, logits * self._repeat)
        counts = np.fromiter(self._counts.values(), dtype=np.float32, count=len(ids))
        row[ids] = logits - (counts * self._frequency + self._presence)
