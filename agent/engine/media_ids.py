"""Images and sounds among token ids: runs of negative ones, made from what they show. Pure.

The prefix tree compares them like any others: equal content is equal ids, so that it is shared
exactly, and another image differs from its first token on. Of each id 30 bits come from the hash of
the content, and the bit that is left marks the first of a run, so that a row of ids says by itself
where a medium may be parted from what follows: only at its end.
"""

from __future__ import annotations

from hashlib import shake_128

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]

_HASH_BITS = np.int32((1 << 30) - 1)
_FIRST = -1 - (1 << 30)
"""The greatest id that begins a run; those of its other tokens are above it, and negative."""


def media_ids(content: bytes, count: int) -> Ints:
    """The ids of a medium of `count` (>= 1) tokens: int32 [count], all negative.

    `content` names what is shown: its hash, and whatever else the embeddings depend on.
    """
    words = np.frombuffer(shake_128(content).digest(4 * count), dtype="<i4")
    ids: Ints = -1 - (words & _HASH_BITS)
    ids[0] -= 1 << 30
    return ids


def without_media(tokens: Ints) -> Ints:
    """The tokens of the vocabulary, in order."""
    return tokens[tokens >= 0]


def before_media(tokens: Ints, count: int) -> int:
    """How many of the first `count` tokens to keep, so that no medium is cut."""
    if count >= len(tokens) or not _FIRST < tokens[count] < 0:
        return count
    starts = np.flatnonzero(tokens[:count] <= _FIRST)
    return int(starts[-1])
