"""A page of another origin, in a real browser, can neither read nor change an open balancer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.sync_api import BrowserContext, Error, Frame, Page

from balancer.http.exchange import Port
from balancer.settings import Address
from tests.support.cluster import free_port, wait_until
from tests.support.lent_balancer import lent_balancer
from tests.support.victim import Targets, Victim, victim

ATTACKS = (Path(__file__).parents[1] / "support" / "attacks.js").read_text("utf-8")
PORTS: tuple[Port, ...] = ("inference", "management")
IN_SHORT = {"another name", "a sandboxed frame"}
SEEING = {
    *("fetch", "no-cors", "credentials", "head", "xhr", "timing", "socket", "message", "events"),
    *("img", "script", "module", "stylesheet", "prefetch"),
    *("POST", "PUT", "DELETE", "simple", "plain"),
}
"""The ways by which a page would learn something, if it may; frames show nothing to anybody, nor
does a `video` of no film."""
LOOK_INTO = """() => {
    const seen = [];
    try { seen.push(opened.document.body.textContent); } catch { /* another origin's */ }
    try { seen.push(opened.location.href); } catch { /* the same */ }
    if (opened.length) seen.push("frames");
    return seen.filter((one) => one && one !== "about:blank").join() || "nothing"; }"""
CHAT = """async (url) => {
    const answer = await fetch(url, {
        method: "POST",
        headers: {
            "Content-Type": "application/json",
            "Authorization": "Bearer any",
            "X-Stainless-Lang": "js",
        },
        body: JSON.stringify({ messages: [{ role: "user", content: "hi" }], stream: true }),
    });
    const id = answer.headers.get("X-Paddler-Request-Id");
    return { text: await answer.text(), id }; }"""
SEND_FORM = """(action) => {
    const form = document.createElement("form");
    Object.assign(form, { action, method: "post", enctype: "text/plain" });
    const field = document.createElement("input");
    field.name = '{"messages": [{"role": "user", "content": "hi"}], "x":"';
    field.value = '"}';
    form.append(field);
    document.body.append(form);
    form.submit(); }"""
ITS_PAGE = b"<!doctype html><title>A stranger's</title><link rel=icon href=data:,><body>"


class Pages(BaseHTTPRequestHandler):
    """A stranger's page, whatever is asked for."""

    def do_GET(self) -> None:
        """Send it."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(ITS_PAGE)))
        self.end_headers()
        self.wfile.write(ITS_PAGE)

    def log_message(self, format: str, *args: Any) -> None:
        """Not on the terminal."""


@pytest.fixture
def same_log_level() -> Iterator[None]:
    """For attacks that succeed."""
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


@contextmanager
def stranger(port: int = 0) -> Iterator[int]:
    """A stranger's server, and its port."""
    server = ThreadingHTTPServer(("127.0.0.1", port), Pages)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def strangers_port() -> Iterator[int]:
    """Where the stranger's pages are."""
    with stranger() as port:
        yield port


@pytest.fixture(scope="module")
def two_ports() -> Iterator[Victim]:
    """A balancer as it is by default."""
    with victim() as made:
        yield made


@pytest.fixture(scope="module")
def one_port() -> Iterator[Victim]:
    """A balancer with both tables at one address."""
    with victim(single_port=True) as made:
        yield made


def on(host: str) -> Callable[[Page, int, Path], Frame]:
    """A page of the stranger's server, called by this name."""

    def opened(page: Page, port: int, folder: Path) -> Frame:
        del folder
        page.goto(f"http://{host}:{port}/")
        return page.main_frame

    return opened


def in_frame(attributes: str) -> Callable[[Page, int, Path], Frame]:
    """A frame in such a page, whose origin is `null`."""

    def opened(page: Page, port: int, folder: Path) -> Frame:
        frame = on("127.0.0.1")(page, port, folder)
        frame.set_content(f"<iframe {attributes}></iframe>")
        return wait_until(lambda: next(iter(frame.child_frames), None), what="the frame is there")

    return opened


def in_file(page: Page, port: int, folder: Path) -> Frame:
    """A file that the user opened."""
    del port
    file = folder / "page.html"
    file.write_bytes(ITS_PAGE)
    page.goto(file.as_uri())
    return page.main_frame


PLACES = {
    "another port": on("127.0.0.1"),
    "another port of localhost": on("localhost"),
    "another name": on("evil.example"),
    "a sandboxed frame": in_frame('sandbox="allow-scripts allow-forms" srcdoc="<body>"'),
    "a data: frame": in_frame('src="data:text/html,<body>"'),
    "a file": in_file,
}


def attacked(frame: Frame, base: str, targets: Targets) -> tuple[list[str], int]:
    """What this page learned, and how many requests it sent that need nobody's leave."""
    told = frame.evaluate(ATTACKS, {"base": base, **msgspec.to_builtins(targets)})
    return told["learned"], told["sent"]


def attack_in_vain(frame: Frame, site: Victim, host: str = "127.0.0.1", *, few: bool) -> None:
    """All attacks on both ports: none teaches or changes anything, though they come as far."""
    before = site.state()
    answers, refused = site.answers(), site.refusals()
    for port in PORTS:
        targets = site.targets(port)
        learned, sent = attacked(frame, site.url(port, host), targets.few() if few else targets)
        assert learned == []
        assert sent > 0
        refused += sent
        site.has_refused(refused)
    assert site.answers() == answers
    assert site.state() == before


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(place, marks=[] if place in IN_SHORT else [pytest.mark.long])
        for place in PLACES
    ],
)
def test_a_page_of_another_origin_learns_and_changes_nothing(
    context: BrowserContext, two_ports: Victim, strangers_port: int, tmp_path: Path, place: str
) -> None:
    frame = PLACES[place](context.new_page(), strangers_port, tmp_path)
    attack_in_vain(frame, two_ports, few=place != "another name")


def test_nor_does_it_where_both_ports_are_one(
    context: BrowserContext, one_port: Victim, strangers_port: int, tmp_path: Path
) -> None:
    frame = PLACES["another port"](context.new_page(), strangers_port, tmp_path)
    attack_in_vain(frame, one_port, few=True)


def test_nor_does_a_page_of_localhost_by_that_name(
    context: BrowserContext, two_ports: Victim, strangers_port: int, tmp_path: Path
) -> None:
    frame = PLACES["another port of localhost"](context.new_page(), strangers_port, tmp_path)
    attack_in_vain(frame, two_ports, "localhost", few=True)


def test_nor_does_the_page_of_one_port_on_the_other(
    context: BrowserContext, two_ports: Victim
) -> None:
    page = context.new_page()
    page.goto(two_ports.url("inference") + "/health")
    before = two_ports.state()

    learned, _ = attacked(
        page.main_frame, two_ports.url("management"), two_ports.targets("management").few()
    )

    assert learned == []
    assert two_ports.state() == before


@pytest.mark.usefixtures("same_log_level")
def test_the_same_from_a_page_of_ours_is_answered(context: BrowserContext) -> None:
    with victim(queue_timeout_s=0.2) as site:  # as its agent is soon removed
        before = site.state()
        ways: set[str] = set()
        for port in PORTS:
            page = context.new_page()
            page.goto(site.url(port) + "/health")
            targets, keys = site.targets(port).apart_from_keys()
            learned, _ = attacked(page.main_frame, site.url(port), targets)
            ways |= {line.partition(" ")[0] for line in learned}
        after = site.state()
        attacked(page.main_frame, site.url(port), keys)
        after["door"] = site.is_open

    assert ways >= SEEING, SEEING - ways
    assert [name for name in before if after[name] == before[name]] == []


def test_a_listed_page_streams_a_chat_and_is_no_operator_s(
    context: BrowserContext, strangers_port: int
) -> None:
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{strangers_port}/")
    with lent_balancer(cors_origins=(f"http://127.0.0.1:{strangers_port}",)) as site:
        told = page.evaluate(CHAT, site.inference_url + "/v1/chat/completions")
        assert "Hello" in told["text"]
        assert told["text"].endswith("data: [DONE]\n\n")
        assert told["id"].startswith("req_")
        with pytest.raises(Error, match="Failed to fetch"):
            page.evaluate(CHAT, site.management_url + "/v1/chat/completions")


def test_a_name_that_was_bound_to_the_balancer_leads_to_nothing(context: BrowserContext) -> None:
    ports = {"inference": free_port(), "management": free_port()}
    pages: dict[str, Page] = {}
    for port, number in ports.items():
        with stranger(number):
            pages[port] = context.new_page()
            pages[port].goto(f"http://evil.example:{number}/")
    addresses = {port: Address("127.0.0.1", number) for port, number in ports.items()}
    with victim(**addresses) as site:
        before = site.state()
        answers = site.answers()
        for port in PORTS:
            base = site.url(port, "evil.example")
            learned, _ = attacked(pages[port].main_frame, base, site.targets(port).few())
            assert learned  # by its name the balancer is of the page's own origin
            assert [line for line in learned if " 403" not in line] == []
        assert site.answers() == answers
        assert site.state() == before


def test_a_window_that_a_stranger_opens_tells_it_nothing(
    context: BrowserContext, two_ports: Victim, strangers_port: int
) -> None:
    page = context.new_page()
    page.goto(f"http://evil.example:{strangers_port}/")
    before = two_ports.state()
    opened: tuple[tuple[Port, str], ...] = (
        ("management", "/"),
        ("management", "/agents"),
        ("inference", f"/v1/streams/{two_ports.held}"),
        ("inference", "/docs"),
    )
    for port, path in opened:
        with context.expect_page() as opening:
            page.evaluate("url => { window.opened = open(url); }", two_ports.url(port) + path)
        opening.value.wait_for_function("location.href !== 'about:blank'")
        assert page.evaluate(LOOK_INTO) == "nothing", path
        opening.value.close()
    assert two_ports.state() == before


def test_a_form_that_leads_the_user_to_the_balancer_does_nothing(
    context: BrowserContext, two_ports: Victim, strangers_port: int
) -> None:
    page = context.new_page()
    before = two_ports.state()
    answers = two_ports.answers()
    for path in ("/agents/one/drain", "/v1/chat/completions", "/config/reload"):
        page.goto(f"http://evil.example:{strangers_port}/")
        with page.expect_navigation() as led:
            page.evaluate(SEND_FORM, two_ports.url("management") + path)
        assert led.value is not None
        assert led.value.status == 403, path
    assert two_ports.answers() == answers
    assert two_ports.state() == before
