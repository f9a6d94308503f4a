"""A small crowd; `python -m tests.benchmarks.bench_crowd` has the large one."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks.bench_crowd import measure


async def test_no_waiting_client_is_lost_when_half_of_a_crowd_leaves_at_once(
    tmp_path: Path,
) -> None:
    crowd = await measure(tmp_path, clients=160)
    assert (crowd.left, crowd.lost) == (80, 0)
