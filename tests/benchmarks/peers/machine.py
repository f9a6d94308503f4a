"""Which core does what, and what a reader of the figures must know about the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Cores:
    """Where the engines' threads run, and where everything else does, the load included."""

    engine: frozenset[int]
    rest: frozenset[int]

    @property
    def apart(self) -> bool:
        """Whether the two are kept apart."""
        return not self.engine & self.rest

    @property
    def every(self) -> frozenset[int]:
        return self.engine | self.rest


def share_out(available: Iterable[int], threads: int) -> Cores:
    """The first `threads` cores for the engine, the next one for the rest, if there is one.

    Where the machine has too few (two threads on two cores), nothing is pinned: both get all.
    """
    cores = sorted(available)
    if len(cores) <= threads:
        return Cores(engine=frozenset(cores), rest=frozenset(cores))
    return Cores(engine=frozenset(cores[:threads]), rest=frozenset({cores[threads]}))


def pin_process(pid: int, cores: frozenset[int]) -> None:
    """Pin every thread that the process has now; those it makes later inherit it."""
    for task in threads_of(pid):
        pin_thread(task, cores)


def pin_thread(thread: int, cores: frozenset[int]) -> None:
    """Pin one thread; a thread that ended meanwhile is left out."""
    try:
        os.sched_setaffinity(thread, cores)
    except ProcessLookupError:
        return


def threads_of(pid: int) -> list[int]:
    """Its threads' ids; none when it is gone."""
    try:
        return [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
    except FileNotFoundError:
        return []


def cpu_s(pid: int, thread: int | None = None) -> float:
    """CPU seconds of a process (ended threads included) or of one of its threads."""
    where = f"/proc/{pid}/stat" if thread is None else f"/proc/{pid}/task/{thread}/stat"
    fields = Path(where).read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def facts() -> dict[str, object]:
    """The machine and the versions, without a name of anybody or anything."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "kernel": platform.release(),
        "python": platform.python_version(),
        "llama_cpp_python": importlib.metadata.version("llama-cpp-python"),
    }
