"""Flow control of binary transfers; both sides receive these."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

MAX_STATE_BYTES = 1024 * 1024 * 1024
"""Of a sequence's state on its way: 8000 tokens of an 8 B model with an f16 cache. More takes a
10 Gbit/s link a second and the two agents 2 GiB; prefilling again is the better way then."""


class Credit(Struct, frozen=True, kw_only=True):
    """Pieces of the transfer arrived: as many bytes more may be sent."""

    transfer: Annotated[int, Meta(ge=1, lt=2**32)]
    bytes_taken: Annotated[int, Meta(ge=1, le=2**20)]


class AbortTransfer(Struct, frozen=True, kw_only=True):
    """The receiver drops the transfer: send nothing more of it."""

    transfer: Annotated[int, Meta(ge=0, lt=2**32)]
