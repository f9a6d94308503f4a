"""Lines for the agent's log, written by the engine process to its error output without waiting."""

from __future__ import annotations

import os
from contextlib import suppress

from protocol.visible import one_line

STDERR = 2


def make_non_blocking() -> None:
    """From here on an agent that does not read loses lines, not the engine its time."""
    os.set_blocking(STDERR, False)


def say(line: str) -> None:
    """One line, whatever a model's file has in it; lost if nobody reads."""
    with suppress(OSError):
        os.write(STDERR, one_line(line.rstrip("\n")).encode("utf-8", "replace") + b"\n")
