"""What pages of the dashboard take: little to be shown, then only sockets, and no more memory."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.support.cluster import Cluster
from tests.support.dashboard import faultless_page
from tests.support.page_traffic import MOST_BYTES, MOST_REQUESTS, PLACES, Traffic, open_whole
from tests.support.simulated_cluster import MINUTE_S, SimulatedCluster
from tests.support.told_page import ToldPage

MORE_BYTES = 300_000
MORE_NODES = 20
MORE_LISTENERS = 5


@pytest.fixture
def page(context: BrowserContext, cluster: Cluster) -> Iterator[Page]:
    """A page that must end without a fault."""
    with faultless_page(context, cluster) as made:
        yield made


def ask(cluster: Cluster) -> None:
    """A short request of a client."""
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    url = f"{cluster.inference_url}/v1/chat/completions"
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode())) as answer:
        answer.read()


@pytest.mark.parametrize("place", PLACES)
def test_a_page_takes_little_to_be_shown(
    context: BrowserContext, page: Page, cluster: Cluster, place: str
) -> None:
    ask(cluster)
    traffic = Traffic(context, page)

    open_whole(page, cluster, place)

    assert traffic.requests <= MOST_REQUESTS
    assert 0 < traffic.body_bytes <= MOST_BYTES


def test_a_page_asks_for_nothing_when_requests_end(
    context: BrowserContext, page: Page, cluster: Cluster
) -> None:
    ask(cluster)
    traffic = Traffic(context, page)
    open_whole(page, cluster, "requests")
    shown = page.get_by_role("region", name="Finished requests").locator("tbody tr")
    newest = shown.first.get_by_role("link").get_attribute("href")
    asked = traffic.requests

    for _ in range(3):
        ask(cluster)

    expect(shown.nth(3).get_by_role("link")).to_have_attribute("href", str(newest))
    assert traffic.addresses[asked:] == []


@pytest.mark.parametrize(
    "place",
    [
        "",
        "agents",
        pytest.param("requests", marks=pytest.mark.long),
        pytest.param("logs", marks=pytest.mark.long),
    ],
)
def test_an_open_page_holds_no_more_than_it_shows(
    context: BrowserContext, page: Page, cluster: Cluster, place: str
) -> None:
    told = ToldPage(page, Traffic(context, page).session, SimulatedCluster(agents=8, requests=24))
    open_whole(page, cluster, place)

    told.tell(MINUTE_S)
    before = told.weight()
    told.tell(MINUTE_S)
    after = told.weight()

    assert after.nodes - before.nodes <= MORE_NODES
    assert after.listeners - before.listeners <= MORE_LISTENERS
    assert after.heap_bytes - before.heap_bytes <= MORE_BYTES
