"""axe finds no barrier in playground, models and log, in light and dark."""

from __future__ import annotations

from typing import Literal

import pytest
from playwright.sync_api import Browser, expect

from tests.support.cluster import Cluster
from tests.support.dashboard import barriers_of


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (1360, "light"),
        (390, "dark"),
        pytest.param(1360, "dark", marks=pytest.mark.long),
        pytest.param(390, "light", marks=pytest.mark.long),
    ],
)
def test_nobody_is_kept_out(
    browser: Browser, cluster: Cluster, scheme: Literal["light", "dark"], width: int
) -> None:
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 844}, reduced_motion="reduce"
    )
    page = context.new_page()
    try:
        page.goto(f"{cluster.management_url}/#/models/demo")
        expect(page.locator(".preview-prompt pre")).to_contain_text("Tell me a story.")
        assert barriers_of(page) == []
        page.goto(f"{cluster.management_url}/#/models")
        expect(page.locator(".model")).to_be_visible()
        assert barriers_of(page) == []
        page.goto(f"{cluster.management_url}/#/logs")
        page.locator(".log-line").last.click()
        assert barriers_of(page) == []
        page.goto(f"{cluster.management_url}/#/playground")
        page.get_by_label("Message").fill("Hi")
        page.get_by_label("Message").press("Enter")
        expect(page.locator('.answer[aria-busy="false"]')).to_have_count(1)
        assert barriers_of(page) == []
        page.get_by_role("button", name="Code", exact=True).click()
        assert barriers_of(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    finally:
        context.close()
