"""The dashboard in a browser: pages that must end without a fault, and what axe objects to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import BrowserContext, ConsoleMessage, Page, expect

from tests.support.cluster import PROJECT, Cluster

AXE = PROJECT / "tests/browser/node/node_modules/axe-core/axe.min.js"
_RUN_AXE = """async () => (await axe.run()).violations.map(
    found => found.id + ": " + found.nodes.map(node => node.html.slice(0, 200)).join(" | "))"""


@contextmanager
def faultless_page(context: BrowserContext, cluster: Cluster) -> Iterator[Page]:
    """A page that must end without an error, a refusal of its policy or a call to elsewhere."""
    faults: list[str] = []
    page = context.new_page()
    page.on("pageerror", lambda error: faults.append(f"error: {error.message}"))
    page.on("console", lambda said: faults.append(said.text) if _is_fault(said) else None)
    page.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
    own = (cluster.management_url, "data:", "blob:")
    page.on(
        "request",
        lambda asked: None if asked.url.startswith(own) else faults.append(f"to {asked.url}"),
    )
    yield page
    assert faults == []


def _is_fault(said: ConsoleMessage) -> bool:
    """Chromium also reports each answer of 400 and above, which the page shows by itself."""
    if said.text.startswith("Failed to load resource"):
        return "/assets/" in str(said.location.get("url", ""))
    return said.type in {"error", "warning"}


def open_page(page: Page, cluster: Cluster, place: str) -> None:
    """One page of the dashboard, once it shows what the cluster is."""
    page.goto(f"{cluster.management_url}/#/{place}")
    expect(page.get_by_role("heading", level=1)).to_be_visible()


def barriers_of(page: Page) -> list[str]:
    """What axe objects to. It is run past the page's policy, which would not let it in."""
    page.evaluate(AXE.read_text("utf-8"))
    found: list[str] = page.evaluate(_RUN_AXE)
    return found
