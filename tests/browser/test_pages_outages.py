"""What pages show while agents and the balancer are killed, frozen and started again."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, Route, WebSocketRoute, expect

from tests.support.cluster import Cluster, Program, wait_until
from tests.support.dashboard import Running, badge, card, chat, faultless_page, open_page

RED_WITHIN_MS = 5_000
"""From the fault on, where agents report every half second and may miss three reports."""
COLOUR = """mark => {
    const canvas = document.createElement("canvas").getContext("2d");
    canvas.fillStyle = getComputedStyle(mark).color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3); }"""


@pytest.fixture(scope="module")
def programs() -> dict[str, Program]:
    """The processes that run now, by name."""
    return {}


@pytest.fixture(scope="module")
def fleet(
    tmp_path_factory: pytest.TempPathFactory, programs: dict[str, Program]
) -> Iterator[Cluster]:
    """Two agents whose silence is soon noticed."""
    made = Cluster(tmp_path_factory.mktemp("outages"))
    try:
        programs["balancer"] = start_balancer(made)
        for name in ("one", "two"):
            programs[name] = made.start_agent(name, wait=False)
        serving(made)
        yield made
    finally:
        made.close()


def start_balancer(fleet: Cluster) -> Program:
    """On the ports that it had before."""
    return fleet.start_balancer("--heartbeat-interval", "0.5", "--heartbeat-misses", "3")


def serving(fleet: Cluster) -> None:
    """Wait until both agents take requests."""

    def both() -> bool:
        agents = fleet.agents()
        return all(name in agents and agents[name]["slots"]["free"] for name in ("one", "two"))

    wait_until(both, what="both agents serve")


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Where clients run."""
    with ThreadPoolExecutor(4) as made:
        yield made


def turns_red(where: Locator, word: str | re.Pattern[str]) -> None:
    """In the time that is promised."""
    mark = badge(where, word, "bad")
    expect(mark).to_be_visible(timeout=RED_WITHIN_MS)
    red, green, blue = mark.evaluate(COLOUR)
    assert red > green + 50
    assert red > blue + 50


@pytest.mark.parametrize(
    ("fault", "word"),
    [(signal.SIGKILL, "Lost"), (signal.SIGSTOP, re.compile("Silent|Lost"))],
    ids=["killed", "frozen"],
)
def test_an_agent_that_is_killed_or_frozen_turns_red_and_its_request_s_page_shows_the_move(
    context: BrowserContext,
    fleet: Cluster,
    programs: dict[str, Program],
    pool: ThreadPoolExecutor,
    fault: signal.Signals,
    word: str | re.Pattern[str],
) -> None:
    with faultless_page(context, fleet) as agents, faultless_page(context, fleet) as request:
        open_page(agents, fleet, "agents")
        running = Running(fleet, pool)
        struck = running.agent
        other = "two" if struck == "one" else "one"
        open_page(request, fleet, f"requests/{running.id}")
        expect(request.locator('.timeline [data-phase="decoded"]')).to_contain_text(struck)

        programs[struck].send(fault)

        turns_red(card(agents, struck), word)
        moved = request.locator('.timeline [data-phase="moved"]')
        expect(moved).to_contain_text(re.compile(r"because: \w+"))
        expect(request.locator('.timeline [data-phase="decoded"]').last).to_contain_text(other)
        request.request.delete(f"{fleet.management_url}/requests/{running.id}")
        assert running.answer.result(60) in {200, 409}

        if fault is signal.SIGSTOP:
            programs[struck].send(signal.SIGCONT)
        else:
            programs[struck].end()
            programs[struck] = fleet.start_agent(struck, wait=False)
        expect(badge(card(agents, struck), "Ready", "good")).to_be_visible()
        expect(card(agents, struck)).to_have_count(1)
    serving(fleet)


def test_after_a_restart_of_the_balancer_every_page_goes_on(
    context: BrowserContext, fleet: Cluster, programs: dict[str, Program]
) -> None:
    overview, playground = context.new_page(), context.new_page()
    open_page(overview, fleet, "")
    expect(overview.locator(".chart canvas")).to_have_count(8)
    open_page(playground, fleet, "playground")
    answer = ask_for_ever(playground)

    programs["balancer"].send(signal.SIGKILL)
    programs["balancer"].wait()

    expect(answer.get_by_role("alert")).to_contain_text("The connection to the balancer broke off.")
    expect(answer.locator(".markdown")).not_to_be_empty()
    for page in (overview, playground):
        expect(page.locator(".banner")).to_contain_text("does not answer")
    programs["balancer"] = start_balancer(fleet)
    serving(fleet)
    for page in (overview, playground):
        page.evaluate("dispatchEvent(new Event('online'))")  # it need not wait its time out
        expect(page.locator(".link-word")).to_have_text("Live")
        expect(page.locator(".banner")).to_have_count(0)
    line = overview.locator(".glance li").filter(has_text="two")
    expect(badge(line, "Ready", "good").first).to_be_visible()
    playground.unroute_all()
    playground.get_by_role("button", name="Regenerate").click()
    expect(playground.locator('.answer[aria-busy="false"] .answer-end')).to_contain_text("tokens")
    url = f"{fleet.management_url}/v1/chat/completions"
    overview.request.post(url, data=chat(max_tokens=16))
    speed = overview.get_by_role("region", name="Tokens per second", exact=True)
    expect(speed.locator(".numeral").last).to_have_text(re.compile("[1-9]"))


def ask_for_ever(page: Page) -> Locator:
    """An answer that has begun, and will not end by itself."""

    def endless(route: Route) -> None:
        body = {**(route.request.post_data_json or {}), "ignore_eos": True, "max_tokens": 1900}
        route.continue_(post_data=json.dumps(body))

    page.route("**/v1/chat/completions", endless)
    page.get_by_label("Message").fill("Count.")
    page.get_by_label("Message").press("Enter")
    answer = page.locator(".answer")
    expect(answer.locator(".markdown")).not_to_be_empty()
    return answer


def test_a_balancer_of_another_version_offers_its_own_page(
    context: BrowserContext, fleet: Cluster
) -> None:
    versions = iter(["1.0.0"])
    page = context.new_page()

    def told(socket: WebSocketRoute) -> None:
        version = next(versions, "1.1.0")
        server = socket.connect_to_server()
        server.on_message(lambda text: socket.send(_of_version(text, version)))
        if version == "1.0.0":
            sockets.append(socket)

    sockets: list[WebSocketRoute] = []
    page.route_web_socket(re.compile("/ws/control"), told)
    open_page(page, fleet, "")
    expect(page.locator(".version")).to_contain_text("1.0.0")
    expect(page.locator(".banner")).to_have_count(0)

    sockets[0].close()

    expect(page.locator(".banner")).to_contain_text("version 1.1.0 now")
    page.get_by_role("button", name="Load the new page").click()
    expect(page.locator(".version")).to_contain_text("1.1.0")
    expect(page.locator(".banner")).to_have_count(0)


def _of_version(text: str | bytes, version: str) -> str:
    told = text if isinstance(text, str) else text.decode()
    return re.sub(r'"version":"[^"]*","started"', f'"version":"{version}","started"', told)
