"""Flow control of binary transfers; both sides receive these."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


class Credit(Struct, frozen=True, kw_only=True):
    """Pieces of the transfer arrived: as many bytes more may be sent."""

    transfer: Annotated[int, Meta(ge=1, lt=2**32)]
    bytes_taken: Annotated[int, Meta(ge=1, le=2**20)]


class AbortTransfer(Struct, frozen=True, kw_only=True):
    """The receiver drops the transfer: send nothing more of it."""

    transfer: Annotated[int, Meta(ge=0, lt=2**32)]
