"""How many threads llama.cpp gets on which machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.engine.loading import cgroup, cpu


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(cpu, "CPU_TOPOLOGY", tmp_path)
    monkeypatch.setattr(cgroup, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(cgroup, "MOUNT", tmp_path / "cgroup")
    (tmp_path / "cgroup" / "ours").mkdir(parents=True)
    (tmp_path / "membership").write_text("0::/ours\n")
    return tmp_path


def have(machine: Path, monkeypatch: pytest.MonkeyPatch, siblings: list[str]) -> None:
    """Logical CPUs, each with the list of those that share its core."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(len(siblings))))
    for number, shared in enumerate(siblings):
        folder = machine / f"cpu{number}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(shared + "\n")


@pytest.mark.parametrize(
    ("siblings", "threads"),
    [
        (["0"], 1),
        (["0", "1"], 2),
        (["0", "1", "2", "3"], 3),
        (["0,4", "1,5", "2,6", "3,7"] * 2, 3),
    ],
    ids=["one core", "two cores", "four cores", "four cores of two threads"],
)
def test_cores_count_once_and_one_is_left_free_when_there_are_more_than_two(
    machine: Path, monkeypatch: pytest.MonkeyPatch, siblings: list[str], threads: int
) -> None:
    have(machine, monkeypatch, siblings)
    assert cpu.sensible_threads() == threads


@pytest.mark.parametrize(
    ("quota", "threads"), [("max 100000", 7), ("250000 100000", 2), ("50000 100000", 1), ("?", 7)]
)
def test_a_containers_share_of_cpu_time_is_a_bound(
    machine: Path, monkeypatch: pytest.MonkeyPatch, quota: str, threads: int
) -> None:
    have(machine, monkeypatch, [str(number) for number in range(8)])
    (machine / "cgroup" / "ours" / "cpu.max").write_text(quota)
    assert cpu.sensible_threads() == threads


def test_the_share_of_every_group_around_ours_is_a_bound(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(machine, monkeypatch, [str(number) for number in range(8)])
    (machine / "cgroup" / "ours" / "cpu.max").write_text("500000 100000")
    (machine / "cgroup" / "cpu.max").write_text("200000 100000")
    assert cpu.sensible_threads() == 2


@pytest.mark.parametrize(("quota", "threads"), [("-1", 7), ("300000", 2)])
def test_the_older_control_groups_count_likewise(
    machine: Path, monkeypatch: pytest.MonkeyPatch, quota: str, threads: int
) -> None:
    have(machine, monkeypatch, [str(number) for number in range(8)])
    (machine / "membership").write_text("4:memory:/x\n3:cpu,cpuacct:/ours\n")
    folder = machine / "cgroup" / "cpu" / "ours"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert cpu.sensible_threads() == threads


def test_cpus_that_we_may_not_use_do_not_count(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(machine, monkeypatch, ["0,4", "1,5", "2,6", "3,7"] * 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 4, 1})
    assert cpu.sensible_threads() == 2


@pytest.mark.usefixtures("machine")
def test_a_machine_that_says_nothing_of_its_cores_counts_its_cpus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(6)))
    assert cpu.sensible_threads() == 5
