"""The seeds of a request's choices. Pure."""

from __future__ import annotations

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
