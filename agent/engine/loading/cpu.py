"""How many threads llama.cpp should have. Its threads spin, so too many cost more than too few."""

from __future__ import annotations

import os
from pathlib import Path

from agent.engine.loading import cgroup

CPU_TOPOLOGY = Path("/sys/devices/system/cpu")


def sensible_threads() -> int:
    """The physical cores that this process may use, one left free when there are more than two.

    Hyper-threads of one core count once (they share its arithmetic units), CPUs that this process
    is not allowed on do not count, and a container's share of CPU time is a bound.
    """
    cpus = usable_cpus()
    cores = {_siblings(cpu) for cpu in cpus}
    usable = min(len(cores), _quota(len(cpus)))
    return usable - 1 if usable > 2 else max(usable, 1)


def usable_cpus() -> set[int]:
    """The logical CPUs that this process may run on; all, where the system has no affinity."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _siblings(cpu: int) -> str:
    """The logical CPUs that share this one's core; only itself where nothing is known."""
    try:
        path = CPU_TOPOLOGY / f"cpu{cpu}" / "topology" / "thread_siblings_list"
        return path.read_text().strip()
    except OSError:
        return str(cpu)


def _quota(otherwise: int) -> int:
    """The smallest share of CPU time on the way up our control groups, in whole CPUs."""
    return min((max(share, 1) for share in _shares()), default=otherwise)


def _shares() -> list[int]:
    shares = []
    for folder in cgroup.folders("cpu"):
        quota, period = _limit(folder)
        if quota and period:
            shares.append(quota // period)
    return shares


def _limit(folder: Path) -> tuple[int | None, int | None]:
    """Microseconds of CPU time in a period of microseconds: version 2's file, or version 1's."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return (None, None) if quota == "max" else (int(quota), int(period))
    except (OSError, ValueError):
        pass
    return (
        cgroup.number(folder / "cpu.cfs_quota_us"),
        cgroup.number(folder / "cpu.cfs_period_us"),
    )
