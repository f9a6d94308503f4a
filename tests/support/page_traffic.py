"""What a page of the dashboard asks for, and what that weighs on the wire."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import BrowserContext, Page, expect

from tests.support.cluster import Cluster

MOST_REQUESTS = 60
MOST_BYTES = 100_000
"""Of compressed files and answers, to show a page with nothing known before. Without headers, which
are about a quarter on top, and without what sockets say."""
PLACES = {
    "": ".chart canvas",
    "agents": ".agent",
    "requests": ".requests tbody tr",
    "models": ".model",
    "logs": ".log-line",
    "settings": ".settings tbody tr",
    "playground": "textarea",
}
"""Where each page is, and what shows that it is whole."""


class Traffic:
    """Of one page from its first request on. `transferred_bytes` are headers and bodies, `told` is
    the number of messages of its sockets."""

    def __init__(self, context: BrowserContext, page: Page) -> None:
        self.addresses: list[str] = []
        self.body_bytes = 0
        self.transferred_bytes = 0
        self.told = 0
        self.told_bytes = 0
        self.session = context.new_cdp_session(page)
        self.session.on("Network.requestWillBeSent", self._on_request)
        self.session.on("Network.responseReceived", self._on_answer)
        self.session.on("Network.loadingFinished", self._on_loaded)
        self.session.on("Network.webSocketFrameReceived", self._on_message)
        self.session.send("Network.enable")

    @property
    def requests(self) -> int:
        """So far; opening a socket is none."""
        return len(self.addresses)

    def _on_request(self, event: dict[str, Any]) -> None:
        self.addresses.append(event["request"]["url"])

    def _on_answer(self, event: dict[str, Any]) -> None:
        headers = {name.lower(): value for name, value in event["response"]["headers"].items()}
        self.body_bytes += int(headers.get("content-length", 0))

    def _on_loaded(self, event: dict[str, Any]) -> None:
        self.transferred_bytes += int(event["encodedDataLength"])

    def _on_message(self, event: dict[str, Any]) -> None:
        self.told += 1
        self.told_bytes += len(event["response"]["payloadData"])


def open_whole(page: Page, cluster: Cluster, place: str) -> None:
    """A page of `PLACES`, once it is whole and asks for nothing more."""
    page.goto(f"{cluster.management_url}/#/{place}")
    expect(page.locator(PLACES[place]).first).to_be_visible()
    page.wait_for_load_state("networkidle")
