"""The terminal while the program runs: another screen, keys one by one, all put back at the end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from balancer.terminal.top.keys import keys

_MOST_KEY_BYTES = 1024
_LEAVING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Screen:
    """Use `opened`; then `show` frames."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = self._new_live()
        self._shown: list[Text] = []

    @contextmanager
    def opened(
        self,
        *,
        on_key: Callable[[str], None],
        on_resize: Callable[[], None],
        on_leave: Callable[[], None],
    ) -> Iterator[None]:
        """Takes the terminal, and gives it back however the block ends. Ctrl-Z works."""
        loop, keyboard = asyncio.get_running_loop(), sys.stdin.fileno()
        before = termios.tcgetattr(keyboard)

        def read() -> None:
            data = os.read(keyboard, _MOST_KEY_BYTES)
            if not data:
                on_leave()
            for key in keys(data):
                on_key(key)

        def sleep() -> None:
            self._live.stop()
            termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
            os.kill(os.getpid(), signal.SIGSTOP)
            tty.setcbreak(keyboard)
            self._live, self._shown = self._new_live(), []
            self._live.start()
            on_resize()

        tty.setcbreak(keyboard)
        try:
            self._live.start()
            loop.add_reader(keyboard, read)
            loop.add_signal_handler(signal.SIGTSTP, sleep)
            loop.add_signal_handler(signal.SIGWINCH, on_resize)
            for number in _LEAVING:
                loop.add_signal_handler(number, on_leave)
            yield
        finally:
            loop.remove_reader(keyboard)
            for number in (*_LEAVING, signal.SIGTSTP, signal.SIGWINCH):
                loop.remove_signal_handler(number)
            self._live.stop()
            termios.tcsetattr(keyboard, termios.TCSADRAIN, before)

    def show(self, lines: list[Text]) -> None:
        """One frame; nothing is sent where it is the last one again."""
        if lines != self._shown:
            self._shown = lines
            self._live.update(Group(*lines), refresh=True)

    def _new_live(self) -> Live:
        return Live(
            console=self._console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,  # what stands in for them knows no encoding
            redirect_stderr=False,
        )
