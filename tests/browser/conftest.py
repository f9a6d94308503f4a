"""One cluster with the shipped model, and one browser, for all tests of pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, expect, sync_playwright

from tests.support.cluster import Cluster

CHROMIUM = "/usr/bin/chromium"
PATIENCE_MS = 30_000
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A balancer with one agent."""
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        made.start_balancer()
        made.start_agent()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(
            executable_path=CHROMIUM,
            # names of strangers, which lead to this host
            args=["--no-sandbox", "--host-resolver-rules=MAP *.example 127.0.0.1"],
        )
        yield made
        made.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser that keeps nothing of the last test."""
    made = browser.new_context(viewport={"width": 1360, "height": 860})
    made.set_default_timeout(PATIENCE_MS)
    yield made
    made.close()
