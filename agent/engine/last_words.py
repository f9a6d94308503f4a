"""Reads the engine process's error output: every line to our log, the last one kept."""

from __future__ import annotations

import asyncio

import structlog

log = structlog.get_logger()

CHUNK_BYTES = 65536
MAX_LINE_CHARS = 2000
GOOD_NEWS = "fit: "
"""How a line begins that is told at each start, and is no reason for a death."""


class LastWords:
    """The engine's last line before its death is often the reason (an assertion, a bad file)."""

    def __init__(self) -> None:
        self.text = ""
        self._rest = b""

    async def read(self, stream: asyncio.StreamReader | None) -> None:
        """Read until the end of the stream. Safe to cancel."""
        while stream is not None and (chunk := await stream.read(CHUNK_BYTES)):
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                self._take(line)
            if len(self._rest) > CHUNK_BYTES:
                self._take_rest()
        self._take_rest()

    def _take_rest(self) -> None:
        self._take(self._rest)
        self._rest = b""

    def _take(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").strip()[:MAX_LINE_CHARS]
        if text:
            if text.startswith(GOOD_NEWS):
                log.info("engine says", line=text)
                return
            self.text = text
            log.warning("engine says", line=text)
