"""Fixtures for every kind of test; what they hand out ends with the test, whatever happens."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.cluster import PROJECT, Cluster

# no property fails for being slow: machines are noisy; in CI each run tries the same examples
settings.register_profile(
    "paddler",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("paddler")

_failed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
    call: pytest.CallInfo[None],  # noqa: ARG001 (pytest's signature)
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember on the item whether a phase failed, for fixtures that keep logs."""
    report = yield
    if report.failed:
        item.stash[_failed] = True
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Count no lines under `uncounted`. pytest-cov's own mark does not do in a worker of xdist,
    where it has started two collectors and stops one."""
    tracer = sys.gettrace() if item.get_closest_marker("uncounted") else None
    if tracer is None:
        return (yield)
    sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(tracer)


@pytest.fixture
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster without processes yet; a failed test's logs stay in out/test-logs/."""
    cluster = Cluster(tmp_path / "logs")
    try:
        yield cluster
    finally:
        cluster.close()
        if request.node.stash.get(_failed, False):
            name = re.sub(r"[^A-Za-z0-9_.-]+", "-", request.node.name)
            cluster.keep_logs(PROJECT / "out" / "test-logs" / name)
