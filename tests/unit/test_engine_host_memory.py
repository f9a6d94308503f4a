"""How much main memory is free, by the machine and by the control groups around us."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.engine.loading import cgroup, host_memory
from agent.engine.loading.host_memory import MemoryFacts, lies_in_memory

GIB = 1024**3


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """16 GiB, 10 of them available, and a process in no group."""
    monkeypatch.setattr(host_memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(host_memory, "MOUNTS", tmp_path / "mounts")
    monkeypatch.setattr(cgroup, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(cgroup, "MOUNT", tmp_path / "cgroup")
    (tmp_path / "meminfo").write_text(
        f"MemTotal: {16 * GIB // 1024} kB\nMemAvailable: {10 * GIB // 1024} kB\nHugePages: 0\n"
    )
    return tmp_path


def group(machine: Path, path: str, **files: int | str) -> Path:
    folder = machine / "cgroup" / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name.replace("__", ".")).write_text(f"{value}\n")
    return folder


def test_without_groups_it_is_what_the_machine_has(machine: Path) -> None:
    assert machine
    assert host_memory.host_memory() == MemoryFacts(free=10 * GIB, total=16 * GIB)


def test_a_group_s_cached_files_count_as_free(machine: Path) -> None:
    (machine / "membership").write_text("0::/box\n")
    box = group(machine, "box", memory__max=4 * GIB, memory__current=3 * GIB)
    stat = f"anon {GIB}\ninactive_file {GIB}\nactive_file {GIB // 2}\nslab_reclaimable 0\nbad\n"
    (box / "memory.stat").write_text(stat)
    assert host_memory.host_memory() == MemoryFacts(free=5 * GIB // 2, total=4 * GIB)


@pytest.mark.parametrize(
    ("inner", "outer", "free"),
    [("max", 2 * GIB, GIB), (3 * GIB, "max", 2 * GIB), ("max", "max", 10 * GIB)],
)
def test_the_smallest_limit_on_the_way_up_binds(
    machine: Path, inner: int | str, outer: int | str, free: int
) -> None:
    (machine / "membership").write_text("0::/outer/inner\n")
    group(machine, "outer", memory__max=outer, memory__current=GIB)
    group(machine, "outer/inner", memory__max=inner, memory__current=GIB)
    assert host_memory.host_memory().free == free


def test_a_group_that_is_slowed_down_early_ends_there(machine: Path) -> None:
    (machine / "membership").write_text("0::/box\n")
    group(machine, "box", memory__max=4 * GIB, memory__high=2 * GIB, memory__current=3 * GIB)
    assert host_memory.host_memory() == MemoryFacts(free=0, total=2 * GIB)


def test_the_older_control_groups_count_likewise(machine: Path) -> None:
    (machine / "membership").write_text("5:cpu:/\n4:memory:/docker/abc\n0::/\n")
    folder = group(
        machine,
        "memory/docker/abc",
        memory__limit_in_bytes=2 * GIB,
        memory__usage_in_bytes=GIB,
    )
    # of the group alone, and of all below it
    (folder / "memory.stat").write_text(f"inactive_file 1\ntotal_inactive_file {GIB // 2}\n")
    group(machine, "memory", memory__limit_in_bytes=2**63 - 4096, memory__usage_in_bytes=GIB)
    assert host_memory.host_memory() == MemoryFacts(free=3 * GIB // 2, total=2 * GIB)


@pytest.mark.parametrize("path", ["/docker/abc", "/../../elsewhere"])
def test_in_a_container_the_mount_itself_is_our_group(machine: Path, path: str) -> None:
    (machine / "membership").write_text(f"0::{path}\n")
    group(machine, "", memory__max=GIB, memory__current=0)
    assert host_memory.host_memory().total == GIB


def test_a_machine_that_tells_nothing_is_no_error(machine: Path) -> None:
    (machine / "meminfo").unlink()
    assert host_memory.host_memory() == MemoryFacts(free=None, total=None)
    (machine / "meminfo").write_text("nonsense\nMemTotal:\n")
    assert host_memory.host_memory() == MemoryFacts(free=None, total=None)


def test_a_file_in_memory_is_told_from_one_on_a_disk(machine: Path) -> None:
    deep = machine / "with space" / "deep"
    deep.mkdir(parents=True)
    mount = str(deep.parent).replace(" ", "\\040")
    (machine / "mounts").write_text(f"disk / ext4 rw 0 0\nnone {mount} tmpfs rw 0 0\nodd\n")
    assert lies_in_memory(deep / "model.gguf")
    assert not lies_in_memory(machine / "model.gguf")
    (machine / "mounts").unlink()
    assert not lies_in_memory(deep / "model.gguf")
