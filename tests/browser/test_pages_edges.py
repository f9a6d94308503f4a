"""Pages where it is easy to go wrong, in a real browser, with agents that are only told of."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, Route, WebSocketRoute, expect

from tests.support.cluster import Cluster
from tests.support.dashboard import faultless_page, open_page


@pytest.fixture
def page(context: BrowserContext, cluster: Cluster) -> Iterator[Page]:
    """A page that must end without a fault."""
    with faultless_page(context, cluster) as made:
        yield made


def agent(name: str) -> dict[str, Any]:
    """A row as the live socket tells it."""
    slots = {"total": 4, "used": 1, "free": 3, "running": 1, "waiting": 0, "paused": 0}
    hardware = {"hostname": "host", "cpu": "", "cores": 4, "memory_bytes": 1 << 30}
    return {
        "id": name,
        "name": name,
        "state": "ready",
        "model": None,
        "slots": slots,
        "kv_cells_used": 0,
        "kv_cells_total": 0,
        "load_progress": None,
        "issues": [],
        "hardware": hardware,
        "host": None,
        "version": "1",
        "llama_cpp_version": "1",
        "last_heard": 4_000_000_000,
        "heartbeat_interval_s": 5,
    }


class Told:
    """What `/ws/control` says in place of the balancer."""

    def __init__(self, page: Page, *names: str) -> None:
        self._agents = {name: agent(name) for name in names}
        self._sockets: list[WebSocketRoute] = []
        self._seq = 1
        page.route_web_socket(re.compile("/ws/control"), self._begin)

    def _begin(self, socket: WebSocketRoute) -> None:
        balancer = {"status": "healthy", "version": "1", "started": 1, "draining": False}
        data = {
            "agents": self._agents,
            "models": {},
            "requests": {},
            "finished": {},
            "balancer": balancer,
        }
        socket.send(json.dumps({"type": "snapshot", "seq": 1, "data": data}))
        self._sockets.append(socket)

    def lose(self, name: str) -> None:
        """An agent goes, that was draining."""
        self._say({f"agents.{name}.state": "draining"}, [])
        self._say({}, [f"agents.{name}"])

    def _say(self, changed: dict[str, Any], gone: list[str]) -> None:
        self._seq += 1
        message = {"type": "delta", "seq": self._seq, "set": changed, "gone": gone}
        self._sockets[-1].send(json.dumps(message))


def test_a_search_stays_in_sight_while_it_holds_agents_back(page: Page, cluster: Cluster) -> None:
    told = Told(page, *(f"gpu-{number}" for number in range(8)))
    open_page(page, cluster, "agents")
    search = page.get_by_role("searchbox")
    search.fill("gpu-3")
    expect(page.locator(".agent")).to_have_count(1)

    told.lose("gpu-7")

    expect(page.locator(".about")).to_contain_text("7 agents")
    search.fill("no such agent")
    expect(page.locator(".agent")).to_have_count(0)
    expect(page.get_by_role("main")).to_contain_text("None of these agents fits")


def test_another_page_takes_the_focus_and_begins_at_its_top(page: Page, cluster: Cluster) -> None:
    Told(page, *(f"gpu-{number}" for number in range(20)))
    open_page(page, cluster, "agents")
    expect(page.locator(".agent")).to_have_count(20)
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")

    page.get_by_role("link", name="Settings").click()

    expect(page.get_by_role("main")).to_be_focused()
    assert page.evaluate("scrollY") == 0


def test_what_is_typed_is_there_after_a_look_at_another_page(page: Page, cluster: Cluster) -> None:
    open_page(page, cluster, "playground")
    page.get_by_label("Message").fill("half a thou")

    page.get_by_role("link", name="Settings").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Settings")
    page.get_by_role("link", name="Playground").click()

    expect(page.get_by_label("Message")).to_have_value("half a thou")


def test_a_number_that_is_none_is_named_and_not_left_out(page: Page, cluster: Cluster) -> None:
    open_page(page, cluster, "playground")
    page.get_by_label("Temperature").press_sequentially("-1.5e")
    page.get_by_label("Message").fill("Hi")
    page.get_by_label("Message").press("Enter")

    expect(page.locator(".note")).to_contain_text("Temperature: -1.5e is not a number from 0 to 2.")


def test_a_drain_is_asked_for_once_and_never_with_an_empty_time(
    page: Page, cluster: Cluster
) -> None:
    asked: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(json={"id": "one"})

    page.route("**/drain*", answer)
    Told(page, "one")
    open_page(page, cluster, "agents")
    page.get_by_role("button", name="Drain").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("goes on elsewhere").check()
    dialog.get_by_label("Seconds").fill("")
    dialog.get_by_role("button", name="Drain").click()
    expect(dialog.get_by_label("Seconds")).to_be_focused()

    dialog.get_by_label("Seconds").fill("5")
    page.evaluate(
        "() => { for (let times = 0; times < 3; times += 1)"
        " document.querySelector('dialog form').requestSubmit(); }"
    )

    expect(dialog).to_have_count(0)
    assert [url.rpartition("/")[2] for url in asked] == ["drain?deadline_s=5"]


def test_each_choice_of_a_request_has_its_story(page: Page, cluster: Cluster) -> None:
    phase = {"phase": "decoded", "start_ms": 0, "end_ms": 9, "agent": "one", "reason": None}
    story = {
        "choice": 0,
        "arrived": 1,
        "agent": "one",
        "outcome": "stop",
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "total_ms": 9,
        "phases": [phase],
    }
    other = {**story, "choice": 1, "agent": "two", "outcome": "length"}
    body = {**story, "other_choices": [other]}
    page.route("**/requests/*/timeline", lambda route: route.fulfill(json=body))

    open_page(page, cluster, "requests/req_a%2Fb")

    expect(page.locator(".story")).to_have_count(2)
    expect(page.get_by_role("heading", name="Choice 2 of 2")).to_be_visible()
    expect(page.locator(".story").last).to_contain_text("Length reached")
