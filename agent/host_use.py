"""How busy this host is: its processor, its memory and, where NVIDIA's library is, its GPUs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from protocol.agent_status import MAX_GPUS, GpuUse, HostUse

try:
    import pynvml
except ImportError:  # the extra `gpu` brings it
    pynvml = None

log = structlog.get_logger()

LEAST_INTERVAL_S = 1.0
"""What is younger is told again: asking a driver takes about a millisecond."""
_IDLE_FIELDS = (3, 4)
"""Of the first line of /proc/stat: `idle` and `iowait`."""


class HostReader:
    """`nvml` is NVIDIA's library, or None. What cannot be read is left out."""

    def __init__(
        self,
        *,
        proc: Path = Path("/proc"),
        nvml: Any = pynvml,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._proc = proc
        self._now = now
        self._ticks = self._processor_ticks()
        self._read_s = now()
        self._latest = HostUse(memory_used_bytes=self._memory_used_bytes())
        self._nvml = nvml
        self._gpus = _handles(nvml)

    def read(self) -> HostUse:
        """As it was within the last second."""
        if self._now() - self._read_s >= LEAST_INTERVAL_S:
            self._read_s = self._now()
            self._latest = HostUse(
                cpu_percent=self._cpu_percent(),
                memory_used_bytes=self._memory_used_bytes(),
                gpus=tuple(_gpu_use(self._nvml, gpu) for gpu in self._gpus),
            )
        return self._latest

    def _cpu_percent(self) -> float | None:
        """Since the last time."""
        busy_before, all_before = self._ticks
        self._ticks = busy, total = self._processor_ticks()
        if total <= all_before:
            return None
        return round(min(max(100 * (busy - busy_before) / (total - all_before), 0.0), 100.0), 1)

    def _processor_ticks(self) -> tuple[int, int]:
        """Busy ones and all of them, since the host started."""
        try:
            first = (self._proc / "stat").read_text(encoding="ascii").partition("\n")[0]
            ticks = [int(field) for field in first.split()[1:9]]
        except (OSError, ValueError):
            return 0, 0
        idle = sum(ticks[field] for field in _IDLE_FIELDS if field < len(ticks))
        return sum(ticks) - idle, sum(ticks)

    def _memory_used_bytes(self) -> int | None:
        try:
            lines = (self._proc / "meminfo").read_text(encoding="ascii").splitlines()
            kib = {line.partition(":")[0]: int(line.split()[1]) for line in lines}
            return max(kib["MemTotal"] - kib["MemAvailable"], 0) * 1024
        except (OSError, ValueError, IndexError, KeyError):
            return None


def _handles(nvml: Any) -> list[Any]:
    """Every GPU that the driver shows; none without a driver."""
    if nvml is None:
        return []
    try:
        nvml.nvmlInit()
        count = min(nvml.nvmlDeviceGetCount(), MAX_GPUS)
        return [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
    except nvml.NVMLError as error:
        log.info("no GPU is watched", reason=str(error))
        return []


def _gpu_use(nvml: Any, gpu: Any) -> GpuUse:
    """A driver tells some of it on some cards only."""

    def told(ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except nvml.NVMLError:
            return None

    rates = told(lambda: nvml.nvmlDeviceGetUtilizationRates(gpu))
    memory = told(lambda: nvml.nvmlDeviceGetMemoryInfo(gpu))
    temperature = told(lambda: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU))
    milliwatts = told(lambda: nvml.nvmlDeviceGetPowerUsage(gpu))
    return GpuUse(
        name=str(told(lambda: nvml.nvmlDeviceGetName(gpu)) or "")[:200],
        busy_percent=None if rates is None else min(float(rates.gpu), 100.0),
        memory_used_bytes=None if memory is None else int(memory.used),
        memory_total_bytes=None if memory is None else int(memory.total),
        temperature_c=None if temperature is None else float(temperature),
        power_w=None if milliwatts is None else round(milliwatts / 1000, 1),
    )
