"""A request's choices: their seeds, and which of them are the best. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b


def seed_of_choice(seed: int, choice: int) -> int:
    """The seed of a choice, counted from 0: 0 to 2**63 - 1, as `protocol.generation.Seed`.

    The first has the request's own, so that it is the answer that the request gets alone. Each
    other has the upper 63 bits of the 8-byte BLAKE2b of the text `<seed>:<choice>`: neighbouring
    seeds, which people like to try in turn, share no choices.
    """
    if choice == 0:
        return seed
    digest = blake2b(f"{seed}:{choice}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def likeliest(means: Sequence[float], count: int) -> list[int]:
    """The indexes of the `count` highest, the highest first; of equal ones the earlier first.

    `means` are answers' mean log probabilities a token: the longer answer is not the less likely.
    """
    return sorted(range(len(means)), key=lambda index: -means[index])[:count]
