"""`--record-routes FILE`: every request's route as a line of JSON, for `simulate.py` to replay.

A line has the route as `GET /requests/{id}/route` shows it and the request's prefix chain in
hexadecimal, which tells what begins alike and nothing of the text.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import structlog
from msgspec import Struct, structs

log = structlog.get_logger(__name__)

MOST_BYTES = 1 << 30


class RouteFile:
    """Appends, up to 1 GiB; then it says so once and writes no more.

    A line goes to the operating system as soon as it is written, so that a killed balancer loses
    none; only the machine's own crash may.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._size = path.stat().st_size
        self._is_full = False

    def write(self, route: Struct, chain: bytes) -> None:
        """One line. A full disk ends the recording, and nothing else."""
        if self._is_full:
            return
        line = msgspec.json.encode({**structs.asdict(route), "chain": chain.hex()}) + b"\n"
        self._size += len(line)
        try:
            if self._size > MOST_BYTES:
                raise OSError(f"it has {MOST_BYTES} bytes")
            if self._file.write(line) != len(line):
                raise OSError("the disk is full")
        except OSError as error:
            self._is_full = True
            log.warning("routes are no longer recorded", file=self._file.name, reason=str(error))

    def close(self) -> None:
        """Nothing is written after it."""
        self._file.close()
