"""One cluster with the shipped model for all tests that only ask it things."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.cluster import PROJECT, Cluster

SERVING_SLOTS = 4


@pytest.fixture(scope="session")
def serving(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Cluster]:
    """A balancer and one agent of `SERVING_SLOTS` slots; its logs stay if a test failed."""
    cluster = Cluster(tmp_path_factory.mktemp("logs"))
    try:
        cluster.start_balancer("--log-level", "debug")
        cluster.start_agent("one", "--slots", str(SERVING_SLOTS), "--log-level", "debug")
        yield cluster
    finally:
        cluster.close()
        if request.session.testsfailed:
            cluster.keep_logs(PROJECT / "out" / "test-logs" / "serving")
