"""How many threads llama.cpp should have. Its threads spin, so too many cost more than too few."""

from __future__ import annotations

import os
from pathlib import Path

CPU_TOPOLOGY = Path("/sys/devices/system/cpu")
CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def sensible_threads() -> int:
    """The physical cores that this process may use, one left free when there are more than two."""
    cpus = os.sched_getaffinity(0)
    cores = {_siblings(cpu) for cpu in cpus}
    usable = min(len(cores), _quota(len(cpus)))
    return usable - 1 if usable > 2 else max(usable, 1)


def _siblings(cpu: int) -> str:
    """The logical CPUs that share this one's core; only itself where nothing is known."""
    try:
        path = CPU_TOPOLOGY / f"cpu{cpu}" / "topology" / "thread_siblings_list"
        return path.read_text().strip()
    except OSError:
        return str(cpu)


def _quota(otherwise: int) -> int:
    """A container's share of CPU time in whole CPUs (cgroup v2)."""
    try:
        quota, period = CGROUP_QUOTA.read_text().split()
        return otherwise if quota == "max" else max(int(quota) // int(period), 1)
    except (OSError, ValueError):
        return otherwise
