"""Overview, agents, requests and settings in a real browser, against a cluster of two agents."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from tests.support.cluster import Cluster
from tests.support.dashboard import Running, badge, card, chat, faultless_page, open_page


@pytest.fixture(scope="module")
def settings_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the balancer of these tests reads."""
    path = tmp_path_factory.mktemp("settings") / "paddler.yaml"
    path.write_text("queue_timeout_s: 30\n")
    return path


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, settings_file: Path) -> Iterator[Cluster]:
    """Two agents that report twice a second, and may be silent for long."""
    made = Cluster(tmp_path_factory.mktemp("fleet"))
    beat = ("--heartbeat-interval", "0.5", "--heartbeat-misses", "100")
    try:
        made.start_balancer("--config", str(settings_file), *beat)
        made.start_agent("one")
        made.start_agent("two")
        yield made
    finally:
        made.close()


@pytest.fixture
def page(context: BrowserContext, fleet: Cluster) -> Iterator[Page]:
    """A page that must end without a fault."""
    with faultless_page(context, fleet) as made:
        yield made


def post(url: str, page: Page, body: dict[str, Any]) -> None:
    """Ask as a client would, not as the page."""
    page.request.post(url, data=body, timeout=60_000)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Where clients run."""
    with ThreadPoolExecutor(4) as made:
        yield made


def test_the_overview_shows_who_serves_and_what_they_do(page: Page, fleet: Cluster) -> None:
    open_page(page, fleet, "")
    expect(page.locator(".chart canvas")).to_have_count(8)
    lines = page.locator(".glance li")
    expect(badge(lines.filter(has_text="one"), "Ready", "good")).to_be_visible()
    expect(lines.filter(has_text="demo").first).to_contain_text(
        re.compile(r"2 agents.*of \d+ slots")
    )

    post(f"{fleet.management_url}/v1/chat/completions", page, chat(max_tokens=16))

    speed = page.get_by_role("region", name="Tokens per second", exact=True)
    expect(speed.locator(".numeral").last).to_have_text(re.compile("[1-9]"))


def test_charts_stand_four_by_two_and_fit_every_width(page: Page, fleet: Cluster) -> None:
    for width, columns in ((1440, 4), (1000, 2), (390, 1)):
        page.set_viewport_size({"width": width, "height": 900})
        open_page(page, fleet, "")
        expect(page.locator(".chart canvas")).to_have_count(8)
        lefts = page.locator(".chart").evaluate_all("all => all.map(one => one.offsetLeft)")
        assert len(set(lefts)) == columns
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_an_agent_s_card_shows_its_slots_and_its_host(page: Page, fleet: Cluster) -> None:
    open_page(page, fleet, "agents")

    one = card(page, "one")
    expect(badge(one, "Ready", "good")).to_be_visible()
    expect(one).to_contain_text("KV cache")
    expect(one.get_by_role("meter", name="Processor")).to_be_visible()
    expect(one.get_by_role("meter", name="Memory")).to_be_visible()


def test_a_silent_agent_turns_red_until_it_is_heard_again(page: Page, fleet: Cluster) -> None:
    frozen = next(program for program in fleet.programs if program.name == "agent-two")
    open_page(page, fleet, "agents/two")
    expect(badge(card(page, "two"), "Ready", "good")).to_be_visible()

    frozen.send(signal.SIGSTOP)
    try:
        expect(badge(card(page, "two"), "Silent", "bad")).to_be_visible()
    finally:
        frozen.send(signal.SIGCONT)
    expect(badge(card(page, "two"), "Ready", "good")).to_be_visible()


def test_an_agent_is_drained_and_resumed(page: Page, fleet: Cluster) -> None:
    open_page(page, fleet, "agents")
    two = card(page, "two")

    two.get_by_role("button", name="Drain").click()
    page.get_by_role("dialog").get_by_role("button", name="Drain").click()

    expect(badge(two, "Draining", "idle")).to_be_visible()
    assert fleet.agents()["two"]["state"] == "draining"
    two.get_by_role("button", name="Resume").click()
    expect(badge(two, "Ready", "good")).to_be_visible()


def test_a_removed_agent_is_let_in_again(page: Page, fleet: Cluster) -> None:
    gone = fleet.start_agent("gone")
    open_page(page, fleet, "agents")

    card(page, "gone").get_by_role("button", name="Remove").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()

    expect(badge(card(page, "gone"), "Removed", "idle")).to_be_visible()
    card(page, "gone").get_by_role("button", name="Let it in").click()
    expect(page.locator(".note").last).to_contain_text("gone may connect again.")
    gone.end()


def test_an_agent_whose_removal_failed_is_missed_when_it_goes(page: Page, fleet: Cluster) -> None:
    error = {"error": {"message": "Not now.", "type": "server_error", "code": "internal_error"}}

    def refuse(route: Route) -> None:
        if route.request.method == "DELETE":
            route.fulfill(status=500, json=error)
        else:
            route.continue_()

    page.route("**/agents/kept", refuse)
    kept = fleet.start_agent("kept")
    open_page(page, fleet, "agents")
    card(page, "kept").get_by_role("button", name="Remove").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(page.locator(".note")).to_contain_text("Not now.")
    expect(badge(card(page, "kept"), "Ready", "good")).to_be_visible()

    kept.send(signal.SIGKILL)

    expect(badge(card(page, "kept"), "Lost", "bad")).to_be_visible()
    card(page, "kept").get_by_role("button", name="Dismiss").click()
    expect(card(page, "kept")).to_have_count(0)


def test_a_request_is_seen_cancelled_and_remembered(
    page: Page, fleet: Cluster, pool: ThreadPoolExecutor
) -> None:
    open_page(page, fleet, "requests")
    running = Running(fleet, pool)
    row = page.get_by_role("region", name="Requests", exact=True).locator("tbody tr")
    expect(badge(row, "Running", "good")).to_be_visible()

    page.get_by_role("button", name=f"Cancel {running.id}").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel it").click()

    assert running.answer.result(60) == 409
    finished = page.get_by_role("region", name="Finished requests").locator("tbody tr").first
    expect(badge(finished, "Cancelled", "idle")).to_be_visible()
    finished.get_by_role("link").click()
    expect(page.locator(".request-id")).to_contain_text(running.id)
    expect(page.locator(".timeline")).to_contain_text("Tokens generated")


def test_a_request_s_story_says_why_it_moved(
    page: Page, fleet: Cluster, pool: ThreadPoolExecutor
) -> None:
    running = Running(fleet, pool)
    open_page(page, fleet, f"requests/{running.id}")
    expect(page.locator(".timeline")).to_contain_text(running.agent)

    fleet.operate(f"/agents/{running.agent}/drain?deadline_s=0")

    try:
        moved = page.locator('.timeline [data-phase="moved"]')
        expect(moved).to_contain_text(re.compile(r"because: \w+"))
    finally:
        fleet.operate(f"/agents/{running.agent}/undrain")
    page.request.delete(f"{fleet.management_url}/requests/{running.id}")
    expect(page.locator(".story")).to_contain_text("Cancelled")


def test_settings_are_read_again_and_what_is_wrong_is_told(
    page: Page, fleet: Cluster, settings_file: Path
) -> None:
    open_page(page, fleet, "settings")
    row = page.get_by_role("row").filter(has_text="queue_timeout_s")
    expect(row).to_contain_text("30")

    settings_file.write_text("queue_timeout_s: 45\n")
    page.get_by_role("button", name="Reload").click()
    expect(row).to_contain_text("45")
    settings_file.write_text("queue_timeout_s: soon\n")
    page.get_by_role("button", name="Reload").click()

    expect(page.locator(".issue")).to_contain_text("queue_timeout_s")
    expect(row).to_contain_text("45")
    settings_file.write_text("queue_timeout_s: 30\n")
    page.get_by_role("button", name="Reload").click()
    expect(page.locator(".issue")).to_have_count(0)


def test_without_an_agent_the_command_that_starts_one_is_shown(
    context: BrowserContext, tmp_path: Path
) -> None:
    alone = Cluster(tmp_path)
    try:
        alone.start_balancer()
        with faultless_page(context, alone) as page:
            open_page(page, alone, "")
            command = f"paddler-py agent --balancer 127.0.0.1:{alone.management_port}"
            expect(page.locator(".command")).to_contain_text(command)
    finally:
        alone.close()


def test_a_balancer_that_is_gone_is_said_and_found_again(
    context: BrowserContext, tmp_path: Path
) -> None:
    alone = Cluster(tmp_path)
    try:
        balancer = alone.start_balancer()
        page = context.new_page()
        open_page(page, alone, "")
        expect(page.locator(".link-word")).to_have_text("Live")

        balancer.end()
        expect(page.locator(".banner")).to_contain_text("does not answer")
        alone.start_balancer()

        expect(page.locator(".link-word")).to_have_text("Live")
        expect(page.locator(".banner")).to_have_count(0)
    finally:
        alone.close()
