"""The door of the dashboard, where the balancer asks for keys."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.support.cluster import Cluster
from tests.support.dashboard import barriers_of, faultless_page, open_page

SETTINGS = """
auth:
  api_keys:
    - {key: admin-key, name: operators, role: admin}
    - user-key
"""


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A balancer that asks for keys."""
    folder: Path = tmp_path_factory.mktemp("closed")
    (folder / "paddler.yaml").write_text(SETTINGS)
    made = Cluster(folder)
    try:
        made.start_balancer("--config", str(folder / "paddler.yaml"))
        yield made
    finally:
        made.close()


@pytest.fixture
def page(context: BrowserContext, closed: Cluster) -> Iterator[Page]:
    """A page that must end without a fault."""
    with faultless_page(context, closed) as made:
        yield made


def asked(closed: Cluster, method: str, path: str, body: Any = None) -> Any:
    """What the management API answers an operator."""
    request = urllib.request.Request(
        closed.management_url + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": "Bearer admin-key"},
        method=method,
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def sign_in(page: Page, key: str) -> None:
    """Type a key, and go in."""
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()


def test_a_key_opens_the_dashboard_until_somebody_signs_out(page: Page, closed: Cluster) -> None:
    open_page(page, closed, "settings")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert barriers_of(page) == []
    sign_in(page, "a wrong key")
    expect(page.get_by_role("alert")).to_contain_text("not known here")
    sign_in(page, "user-key")
    expect(page.get_by_role("alert")).to_contain_text("needs the role admin")
    sign_in(page, "admin-key")
    expect(page.get_by_role("heading", name="Settings")).to_be_visible()
    expect(page.get_by_text("Live", exact=True)).to_be_visible()

    page.reload()
    page.get_by_role("button", name="Reload").click()  # a change: its token goes along
    expect(page.get_by_text("nothing has changed")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert page.context.cookies() == []


def test_the_door_is_shown_to_whoever_s_key_is_taken_away(page: Page, closed: Cluster) -> None:
    made = asked(closed, "POST", "/keys", {"name": "brief", "role": "admin"})
    open_page(page, closed, "agents")
    sign_in(page, made["key"])
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    asked(closed, "DELETE", f"/keys/{made['id']}")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
