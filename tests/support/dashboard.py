"""The dashboard in a browser: pages that must end without a fault, and what axe objects to."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol

from playwright.sync_api import BrowserContext, ConsoleMessage, Locator, Page, expect

from tests.support.cluster import PROJECT, Cluster, wait_until

AXE = PROJECT / "tests/browser/node/node_modules/axe-core/axe.min.js"
_RUN_AXE = """async () => (await axe.run()).violations.map(
    found => found.id + ": " + found.nodes.map(node => node.html.slice(0, 200)).join(" | "))"""


class Paged(Protocol):
    """What serves the dashboard."""

    @property
    def management_url(self) -> str:
        """Where it does."""


@contextmanager
def faultless_page(context: BrowserContext, cluster: Paged) -> Iterator[Page]:
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


def open_page(page: Page, cluster: Paged, place: str) -> None:
    """One page of the dashboard, once it shows what the cluster is."""
    page.goto(f"{cluster.management_url}/#/{place}")
    expect(page.get_by_role("heading", level=1)).to_be_visible()


def barriers_of(page: Page) -> list[str]:
    """What axe objects to. It is run past the page's policy, which would not let it in."""
    page.evaluate(AXE.read_text("utf-8"))
    found: list[str] = page.evaluate(_RUN_AXE)
    return found


def card(page: Page, name: str) -> Locator:
    """An agent's."""
    return page.locator(".agent").filter(has=page.get_by_role("heading", name=name, exact=True))


def badge(where: Locator, word: str | re.Pattern[str], tone: str) -> Locator:
    """A word in its colour."""
    return where.locator(f'.badge[data-tone="{tone}"]', has_text=word)


def chat(**more: Any) -> dict[str, Any]:
    """The body of a request."""
    return {"messages": [{"role": "user", "content": "Count from 1 to 20."}], **more}


class Running:
    """A request that goes on until it is ended, and its id."""

    def __init__(self, fleet: Cluster, pool: ThreadPoolExecutor) -> None:
        self._fleet = fleet
        body = chat(ignore_eos=True, max_tokens=1900, model="demo")
        self.answer = pool.submit(fleet_post, fleet, json.dumps(body).encode())
        row = wait_until(self._row, what="the request runs")
        self.id: str = row["id"]
        self.agent: str = row["agent"]

    def _row(self) -> Any:
        rows = self._fleet.get_json(f"{self._fleet.management_url}/requests")["data"]
        return next((row for row in rows if row["state"] == "running"), None)


def fleet_post(fleet: Cluster, body: bytes) -> int:
    """The status that the inference port answers."""
    request = urllib.request.Request(f"{fleet.inference_url}/v1/chat/completions", body)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        return error.code
