"""How much main memory this process may still take before something is killed or swapped."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from agent.engine.loading import cgroup

MEMINFO = Path("/proc/meminfo")
MOUNTS = Path("/proc/self/mounts")
_IN_MEMORY = frozenset(("tmpfs", "ramfs", "hugetlbfs"))
_RECLAIMABLE = ("inactive_file", "active_file", "slab_reclaimable")
"""What the kernel gives back under pressure: file pages, the model's own among them."""


class MemoryFacts(Struct, frozen=True, kw_only=True):
    """Memory in bytes. None: this machine does not say."""

    free: int | None = None
    total: int | None = None


def host_memory() -> MemoryFacts:
    """The least of what the machine and each of our control groups have left.

    Pages of files count as free, so a model that is already in the page cache needs no more room
    than one that is not.
    """
    frees, totals = _from_meminfo()
    for folder in cgroup.folders("memory"):
        limit, used = _limit_and_use(folder)
        if limit is None:
            continue
        totals.append(limit)
        if used is not None:
            frees.append(max(limit - used + _reclaimable(folder, used), 0))
    return MemoryFacts(free=min(frees, default=None), total=min(totals, default=None))


def lies_in_memory(file: Path) -> bool:
    """Whether a file's file system keeps it in main memory, where it is counted as used."""
    try:
        mounts = [line.split() for line in MOUNTS.read_text().splitlines()]
        path = file.resolve()
    except OSError:
        return False
    kinds = {fields[1].replace("\\040", " "): fields[2] for fields in mounts if len(fields) > 2}
    around = (str(folder) for folder in (path, *path.parents))
    return next((kinds[folder] for folder in around if folder in kinds), "") in _IN_MEMORY


def _from_meminfo() -> tuple[list[int], list[int]]:
    values: dict[str, int] = {}
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        return [], []
    for line in lines:
        name, _, value = line.partition(":")
        digits = value.split()[0] if value.split() else ""
        if digits.isdecimal():
            values[name] = int(digits) * 1024
    return (
        [values["MemAvailable"]] if "MemAvailable" in values else [],
        [values["MemTotal"]] if "MemTotal" in values else [],
    )


def _limit_and_use(folder: Path) -> tuple[int | None, int | None]:
    """A group's limit and use: version 2's files, or version 1's.

    Past memory.high a group is slowed down until nothing moves, so it is as good as a limit.
    """
    limits = [cgroup.number(folder / name) for name in ("memory.max", "memory.high")]
    known = [limit for limit in limits if limit is not None]
    if known:
        return min(known), cgroup.number(folder / "memory.current")
    return (
        cgroup.number(folder / "memory.limit_in_bytes"),
        cgroup.number(folder / "memory.usage_in_bytes"),
    )


def _reclaimable(folder: Path, used: int) -> int:
    """Bytes of the group's use that are only cached. Version 1 has a group's sum in total_…."""
    try:
        pairs = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
        stat = {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}
    except OSError:
        return 0
    return min(sum(stat.get(f"total_{key}", stat.get(key, 0)) for key in _RECLAIMABLE), used)
