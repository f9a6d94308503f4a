"""llama.cpp's own log, and its start."""

from __future__ import annotations

import ctypes
from functools import cache

from llama_cpp import llama_cpp as api

from agent.engine.stderr_lines import say

LOG_WARNING = 3
LOG_ERROR = 4


class LlamaLog:
    """llama.cpp's own log: warnings and errors become lines of ours, the rest is dropped."""

    def __init__(self) -> None:
        self.last_error = ""
        # kept: llama.cpp holds the bare pointer
        self.callback = api.llama_log_callback(self._take)
        api.llama_log_set(self.callback, ctypes.c_void_p(0))

    def _take(self, level: int, text: bytes | None, _user_data: object) -> None:
        if not text or level not in (LOG_WARNING, LOG_ERROR):
            return
        line = text.decode("utf-8", "replace").strip()
        if level == LOG_ERROR:
            self.last_error = line
        say(f"llama.cpp: {line}")


@cache
def start_backend() -> LlamaLog:
    """Before anything else here; the one log of the process.

    llama.cpp has one callback for all of a process: were there two logs, the death of the younger
    one would leave it with a pointer to nothing.
    """
    log = LlamaLog()
    api.llama_backend_init()
    return log
