"""What pages are made of: slots that fill, chosen colours, text that is copied."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.support.cluster import Cluster
from tests.support.dashboard import Running, card, faultless_page, open_page


@pytest.fixture
def page(context: BrowserContext, cluster: Cluster) -> Iterator[Page]:
    """A page that must end without a fault."""
    with faultless_page(context, cluster) as made:
        yield made


def test_slots_and_cells_fill_while_a_request_runs(page: Page, cluster: Cluster) -> None:
    with ThreadPoolExecutor(1) as pool:
        open_page(page, cluster, "agents")
        one = card(page, "one")
        free = one.locator('.slots i[data-state="free"]')
        expect(one.locator('.slots i[data-state="running"]')).to_have_count(0)
        expect(free).not_to_have_count(0)
        before = free.count()

        running = Running(cluster, pool)

        expect(one.locator('.slots i[data-state="running"]')).to_have_count(1)
        expect(free).to_have_count(before - 1)
        expect(one.get_by_role("meter", name="KV cache")).not_to_have_attribute(
            "aria-valuenow", "0"
        )
        page.request.delete(f"{cluster.management_url}/requests/{running.id}")


def test_colours_that_were_chosen_are_there_again(page: Page, cluster: Cluster) -> None:
    open_page(page, cluster, "settings")
    switch = page.get_by_role("button", name="Colours")
    grounds = []
    for theme in ("light", "dark"):
        switch.click()
        expect(page.locator("html")).to_have_attribute("data-theme", theme)
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds[0] != grounds[1]

    page.reload()

    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_what_can_be_copied_is(page: Page, cluster: Cluster) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    open_page(page, cluster, "requests/req_1")

    page.get_by_role("button", name="Copy the id").click()

    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "req_1"
