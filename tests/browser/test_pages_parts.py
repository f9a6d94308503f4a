"""What pages are made of: slots and charts that fill, chosen colours, text that is copied."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.support.cluster import Cluster
from tests.support.dashboard import Running, card, faultless_page, open_page

INK = """canvas => {
    const probe = document.createElement("canvas").getContext("2d");
    probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--accent");
    probe.fillRect(0, 0, 1, 1);
    const [red, green, blue] = probe.getImageData(0, 0, 1, 1).data;
    const all = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    for (let at = 0; at < all.length; at += 4) {
        const apart = Math.abs(all[at] - red) + Math.abs(all[at + 1] - green)
            + Math.abs(all[at + 2] - blue);
        if (all[at + 3] > 200 && apart < 24) return true;
    }
    return false; }"""


@pytest.fixture
def page(context: BrowserContext, cluster: Cluster) -> Iterator[Page]:
    """A page that must end without a fault."""
    with faultless_page(context, cluster) as made:
        yield made


def test_slots_cells_and_lines_fill_while_a_request_runs(page: Page, cluster: Cluster) -> None:
    with ThreadPoolExecutor(1) as pool:
        open_page(page, cluster, "agents")
        one = card(page, "one")
        free = one.locator('.slots i[data-state="free"]')
        expect(one.locator('.slots i[data-state="running"]')).to_have_count(0)
        before = free.count()

        running = Running(cluster, pool)

        expect(one.locator('.slots i[data-state="running"]')).to_have_count(1)
        expect(free).to_have_count(before - 1)
        expect(one.get_by_role("meter", name="KV cache")).not_to_have_attribute(
            "aria-valuenow", "0"
        )
        page.request.delete(f"{cluster.management_url}/requests/{running.id}")
    open_page(page, cluster, "")
    drawn = page.get_by_role("region", name="Tokens per second", exact=True).locator("canvas")
    drawn.wait_for()
    page.wait_for_function(f"canvas => ({INK})(canvas)", arg=drawn.element_handle())


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
