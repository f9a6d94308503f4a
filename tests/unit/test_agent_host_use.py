"""How busy the agent's host is, as it is told with the heartbeats."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from agent.host_use import HostReader
from protocol.agent_status import GpuUse, HostUse


class NVMLError(Exception):
    pass


class FakeNvml:
    """A driver with one card that does not tell what it draws."""

    NVMLError = NVMLError
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, *, has_driver: bool = True) -> None:
        self._has_driver = has_driver

    def nvmlInit(self) -> None:
        if not self._has_driver:
            raise NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, _: Any) -> str:
        return "H100"

    def nvmlDeviceGetUtilizationRates(self, _: Any) -> Any:
        return SimpleNamespace(gpu=97)

    def nvmlDeviceGetMemoryInfo(self, _: Any) -> Any:
        return SimpleNamespace(used=1, total=2)

    def nvmlDeviceGetTemperature(self, _: Any, __: int) -> int:
        return 61

    def nvmlDeviceGetPowerUsage(self, _: Any) -> int:
        raise NVMLError("Not Supported")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _proc(folder: Path, *, busy: int, idle: int, available_kib: int = 40) -> Path:
    (folder / "stat").write_text(f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 2 3\n")
    (folder / "meminfo").write_text(f"MemTotal: 100 kB\nMemAvailable: {available_kib} kB\n")
    return folder


def test_the_processor_is_as_busy_as_it_was_since_the_reading_before(tmp_path: Path) -> None:
    clock = Clock()
    reader = HostReader(proc=_proc(tmp_path, busy=0, idle=0), nvml=None, now=clock)
    assert reader.read() == HostUse(memory_used_bytes=60 * 1024)
    _proc(tmp_path, busy=25, idle=75, available_kib=50)
    assert reader.read().cpu_percent is None  # too young
    clock.now = 1.0
    assert reader.read() == HostUse(cpu_percent=25.0, memory_used_bytes=50 * 1024)
    clock.now = 2.0
    assert reader.read().cpu_percent is None  # nothing has passed


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    clock = Clock()
    reader = HostReader(proc=tmp_path / "nowhere", nvml=FakeNvml(has_driver=False), now=clock)
    clock.now = 5.0
    assert reader.read() == HostUse()


def test_a_gpu_is_told_of_as_far_as_its_driver_tells(tmp_path: Path) -> None:
    clock = Clock()
    reader = HostReader(proc=_proc(tmp_path, busy=0, idle=0), nvml=FakeNvml(), now=clock)
    clock.now = 1.0
    assert reader.read().gpus == (
        GpuUse(
            name="H100",
            busy_percent=97.0,
            memory_used_bytes=1,
            memory_total_bytes=2,
            temperature_c=61.0,
            power_w=None,
        ),
    )
