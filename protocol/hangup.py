"""A hangup (SIGHUP) that comes before the program is ready to act on it. Standard library only."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class EarlyHangup:
    """A signal handler that remembers, in place of the end that a hangup is by default."""

    def __init__(self) -> None:
        self.came = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.came = True


def remember_hangup() -> None:
    """From now on. Only the main thread may say so; elsewhere nothing changes."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGHUP, EarlyHangup())


def hangup_came_before(handler: object) -> bool:
    """Whether one is remembered; `handler` is the one that was in place, as `signal.getsignal`
    has it."""
    return isinstance(handler, EarlyHangup) and handler.came
