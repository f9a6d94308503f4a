"""How the engine stands with its work, for those who tell others whether the agent is well."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

LOAD_PATIENCE_S = 300.0
"""A load says how far it is several times a second; before that a driver wakes its devices, and
behind it the first tokens are decoded."""


class Standing(Struct, frozen=True, kw_only=True):
    """At one moment."""

    phase: Literal["down", "loading", "serving"] = "down"
    """Down: the last process ended, the next is about to be started."""
    loaded: float = 0.0
    """Of the model, 0 to 1."""
    silent_s: float = 0.0
    """For how long something has been due from the engine that did not come; 0: nothing is due."""
    patience_s: float = 0.0
    """How long that may take."""
