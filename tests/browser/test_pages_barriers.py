"""axe finds no barrier in overview, agents, requests and settings, in light and dark."""

from __future__ import annotations

from typing import Literal

import pytest
from playwright.sync_api import Browser, expect

from tests.support.cluster import Cluster
from tests.support.dashboard import barriers_of


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (1440, "light"),
        (390, "dark"),
        pytest.param(1440, "dark", marks=pytest.mark.long),
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
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}
    try:
        page.request.post(f"{cluster.management_url}/v1/chat/completions", data=body)
        for place, seen in (
            ("", ".chart canvas"),
            ("requests", ".requests tbody tr"),
            ("settings", ".settings tbody tr"),
            ("agents", ".agent"),
        ):
            page.goto(f"{cluster.management_url}/#/{place}")
            expect(page.locator(seen).first).to_be_visible()
            assert barriers_of(page) == []
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.get_by_role("button", name="Drain").first.click()
        assert barriers_of(page) == []
        page.keyboard.press("Escape")
        page.goto(f"{cluster.management_url}/#/requests")
        page.locator(".requests a").first.click()
        expect(page.locator(".timeline li").first).to_be_visible()
        assert barriers_of(page) == []
    finally:
        context.close()
