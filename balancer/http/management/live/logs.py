"""What `/ws/logs` shows: lines of the log, of those that a reader wants."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from balancer.http.frames import text_frame
from balancer.http.management.live.hub import Room, Timer
from balancer.http.management.live.reader import Reader
from balancer.observability.log_ring import RANKS, LogLine, LogRing

INTERVAL_S = 0.25
SHOWN_AT_FIRST = 200


class LogFilter(Struct, frozen=True, kw_only=True):
    """Which lines: of this level and above, of this module and those within, of this request."""

    level: str = "debug"
    component: str = ""
    request_id: str = ""

    def fits(self, line: LogLine) -> bool:
        """Whether a line is wanted."""
        return (
            RANKS.get(line.level, RANKS["error"]) >= RANKS[self.level]
            and (not self.component or f"{line.component}.".startswith(f"{self.component}."))
            and (not self.request_id or line.request_id == self.request_id)
        )


class LogRoom(Room):
    """Readers by what they want: those who want the same are sent the same bytes."""

    def __init__(self, ring: LogRing) -> None:
        super().__init__(Timer(INTERVAL_S))
        self.ring = ring
        self._last = 0
        self._filters: dict[Reader, LogFilter] = {}
        self._seqs: dict[LogFilter, int] = {}

    def join(self, reader: Reader, wanted: LogFilter) -> None:
        """Send it the latest lines, and those to come. Raises `QueueFull`."""
        if self._enter(reader):
            self._last = self.ring.last
        else:
            self._tick()  # so that nothing comes twice
        self._filters[reader] = wanted
        self._seqs.setdefault(wanted, 1)
        self.refresh(reader)

    def leave(self, reader: Reader) -> None:
        """It is gone."""
        super().leave(reader)
        wanted = self._filters.pop(reader, None)
        if wanted is not None and wanted not in self._filters.values():
            del self._seqs[wanted]

    def refresh(self, reader: Reader) -> None:
        """The latest lines that it wants."""
        wanted = self._filters[reader]
        lines, _ = self.ring.since(0)
        fitting = [line for line in lines if wanted.fits(line)][-SHOWN_AT_FIRST:]
        reader.missed = 0
        seq, data = self._seqs[wanted], {"lines": fitting}
        reader.send_value({"type": "snapshot", "seq": seq, "data": data})

    def _tick(self) -> None:
        lines, forgotten = self.ring.since(self._last)
        self._last = self.ring.last
        frames: dict[LogFilter, tuple[bytes, int]] = {}
        for reader, wanted in tuple(self._filters.items()):
            if wanted not in frames:
                frames[wanted] = self._frame(wanted, lines)
            self._tell(reader, *frames[wanted], forgotten)

    def _frame(self, wanted: LogFilter, lines: list[LogLine]) -> tuple[bytes, int]:
        fitting = [line for line in lines if wanted.fits(line)]
        if not fitting:
            return b"", 0
        self._seqs[wanted] += 1
        message = {"type": "lines", "seq": self._seqs[wanted], "lines": fitting}
        return text_frame(msgspec.json.encode(message)), len(fitting)

    @staticmethod
    def _tell(reader: Reader, frame: bytes, count: int, forgotten: int) -> None:
        """The lines, or later how many it missed because it did not read."""
        reader.missed += forgotten
        if frame and (reader.is_full or (reader.missed and not reader.has_read_all)):
            reader.missed += count
            return
        if reader.missed and reader.has_read_all:
            reader.send_value({"type": "missed", "count": reader.missed})
            reader.missed = 0
        if frame:
            reader.send(frame)
