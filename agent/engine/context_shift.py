"""What a call lets go of when its share of the context is full and it asked to go on. Pure.

The prompt stays, but for what of it is beyond half of the share; of what follows, the older half
goes. That happens each time the share is full and a further token is to be decoded, so what is
left after so many tokens is a function of their number, and a call that goes on elsewhere gets it
by counting.

The tokens that stay keep what they saw of those that went: only their positions are shifted. So
what a call has in the KV cache then is not what prefilling its tokens would give, is nobody else's
prefix, and a call that goes on elsewhere after a shift may go on otherwise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]


def dropped(*, prompt_tokens: int, cached: int) -> tuple[int, int]:
    """From where on how many (>= 1) of `cached` (>= 2) tokens go."""
    start = min(prompt_tokens, cached // 2)
    return start, max((cached - start) // 2, 1)


def left_of(tokens: Ints, *, prompt_tokens: int, context: int) -> Ints:
    """What a call with a share of `context` (>= 2) tokens has left after these: at most so many."""
    left, to_come = tokens[:context], tokens[context:]
    while len(to_come):
        start, count = dropped(prompt_tokens=prompt_tokens, cached=len(left))
        left = np.concatenate((left[:start], left[start + count :], to_come[:count]))
        to_come = to_come[count:]
    return left
