"""The balancer's own host: processor, memory and disk, as far as the system tells."""

from __future__ import annotations

import shutil
from pathlib import Path

from balancer.observability.series import share

_KIB_OF_MIB = 1024
_IDLE_FIELDS = (3, 4)
"""Of the first line of /proc/stat: `idle` and `iowait`."""


class Host:
    """Reads /proc; what cannot be read is None."""

    def __init__(self, proc: Path = Path("/proc"), disk: str = "/") -> None:
        self._proc = proc
        self._disk = disk
        self._ticks = self._processor_ticks()

    def read(self) -> dict[str, float | int | None]:
        """How busy it is; the processor since the reading before."""
        memory = self._memory_kib()
        total, available = memory.get("MemTotal", 0), memory.get("MemAvailable", 0)
        return {
            "cpu_percent": self._cpu_percent(),
            "memory_percent": _percent(total - available, total),
            "memory_used_mb": (total - available) // _KIB_OF_MIB if total else None,
            "disk_percent": self._disk_percent(),
        }

    def _cpu_percent(self) -> float | None:
        busy_before, all_before = self._ticks
        self._ticks = busy, total = self._processor_ticks()
        return _percent(busy - busy_before, total - all_before)

    def _disk_percent(self) -> float | None:
        try:
            disk = shutil.disk_usage(self._disk)
        except OSError:
            return None
        return _percent(disk.used, disk.total)

    def _processor_ticks(self) -> tuple[int, int]:
        """Busy ones and all of them, since the host started."""
        try:
            first = (self._proc / "stat").read_text(encoding="ascii").partition("\n")[0]
            ticks = [int(field) for field in first.split()[1:9]]
        except (OSError, ValueError):
            return 0, 0
        idle = sum(ticks[field] for field in _IDLE_FIELDS if field < len(ticks))
        return sum(ticks) - idle, sum(ticks)

    def _memory_kib(self) -> dict[str, int]:
        try:
            lines = (self._proc / "meminfo").read_text(encoding="ascii").splitlines()
            return {line.partition(":")[0]: int(line.split()[1]) for line in lines}
        except (OSError, ValueError, IndexError):
            return {}


def _percent(part: float, whole: float) -> float | None:
    found = share(part, whole)
    return None if found is None else round(100 * found, 1)
