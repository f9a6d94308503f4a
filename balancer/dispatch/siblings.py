"""What the choices of one request know of each other: when the latest of them got on."""

from __future__ import annotations

from msgspec import Struct


class Siblings(Struct):
    """Shared by all choices of a request. As long as one after the other gets a slot, none of them
    has waited too long: those behind wait for those before."""

    progressed_s: float = 0.0
    """When an agent took the latest one, in seconds of the dispatcher's clock."""
