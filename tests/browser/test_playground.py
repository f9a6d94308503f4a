"""Playground, models and log in a real browser, against a real cluster of the shipped model."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, Route, WebSocketRoute, expect

from tests.support.cluster import Cluster, wait_until
from tests.support.dashboard import faultless_page, open_page

CHAT = "**/v1/chat/completions"
PATIENCE_MS = 30_000
DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture
def page(context: BrowserContext, cluster: Cluster) -> Iterator[Page]:
    """A page that must end without a fault."""
    with faultless_page(context, cluster) as made:
        yield made


def ask(page: Page, text: str) -> None:
    """Type a question and send it."""
    page.get_by_label("Message").fill(text)
    page.get_by_label("Message").press("Enter")


def settled(page: Page, count: int = 1) -> None:
    """Wait until so many answers stand there whole."""
    expect(page.locator('.answer[aria-busy="false"]')).to_have_count(count, timeout=PATIENCE_MS)


def says(page: Page, text: str) -> None:
    """Have the model say this, in two pieces."""
    half = len(text) // 2
    chunks = [{"choices": [{"delta": {"content": part}}]} for part in (text[:half], text[half:])]
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    headers = {"Content-Type": "text/event-stream"}
    page.route(CHAT, lambda route: route.fulfill(body=body, headers=headers))


def test_a_chat_streams_and_its_timings_stand_under_it(page: Page, cluster: Cluster) -> None:
    open_page(page, cluster, "playground")

    ask(page, "Hi")

    settled(page)
    answer = page.locator(".answer")
    expect(answer.locator(".markdown")).not_to_be_empty()
    expect(answer.locator(".answer-end")).to_contain_text(
        re.compile(r"\d+ tokens · .*tokens/s · first after .*on one")
    )


def test_a_stopped_answer_stays_as_far_as_it_came_and_frees_its_slot(
    page: Page, cluster: Cluster
) -> None:
    def endless(route: Route) -> None:
        body = {**(route.request.post_data_json or {}), "ignore_eos": True, "max_tokens": 1900}
        route.continue_(post_data=json.dumps(body))

    page.route(CHAT, endless)
    open_page(page, cluster, "playground")
    ask(page, "Count.")
    expect(page.locator(".answer .markdown")).not_to_be_empty()

    page.get_by_role("button", name="Stop").click()

    expect(page.locator(".answer-end")).to_contain_text("stopped")
    expect(page.locator(".answer .markdown")).not_to_be_empty()
    wait_until(
        lambda: not cluster.get_json(f"{cluster.management_url}/requests")["data"],
        what="the balancer has no request left",
    )


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)> and <svg onload=alert(1)>",
        "[go](javascript:alert(1)) or [here](data:text/html,<script>alert(1)</script>)",
        "![seen](http://tracker.example/pixel.png) [![x](http://tracker.example/y.png)](#/agents)",
        '<a href="javascript:alert(1)" style="position:fixed">x</a><iframe src="/"></iframe>',
        "```html\n</code></pre><script>alert(1)</script>\n```",
    ],
)
def test_what_a_hostile_model_writes_is_only_read(
    page: Page, cluster: Cluster, hostile: str
) -> None:
    says(page, hostile)
    open_page(page, cluster, "playground")

    ask(page, "Hi")

    settled(page)
    written = page.locator(".answer .markdown")
    expect(written).not_to_be_empty()
    expect(
        written.locator("script, img, iframe, svg:not(.icon), [style], [onerror]")
    ).to_have_count(0)
    expect(written.locator("a")).to_have_count(0)


def test_a_link_of_a_model_tells_nothing_of_this_page(page: Page, cluster: Cluster) -> None:
    says(page, "See [the guide](https://example.org/guide).")
    open_page(page, cluster, "playground")

    ask(page, "Hi")

    link = page.locator(".answer .markdown a")
    expect(link).to_have_attribute("href", "https://example.org/guide")
    expect(link).to_have_attribute("rel", re.compile("noopener"))
    expect(link).to_have_attribute("target", "_blank")


def test_an_error_says_what_the_balancer_said(page: Page, cluster: Cluster) -> None:
    open_page(page, cluster, "playground")
    page.get_by_label("Form of the answer").select_option("json_schema")
    page.get_by_label("JSON schema", exact=True).fill("[1]")

    ask(page, "Hi")

    expect(page.locator(".note")).to_contain_text("The JSON schema is not an object.")
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.get_by_label("Message")).to_have_value("Hi")


def test_two_models_answer_side_by_side(page: Page, cluster: Cluster) -> None:
    open_page(page, cluster, "playground")
    page.get_by_role("button", name="Compare").click()

    ask(page, "Hi")

    settled(page, 2)
    first, second = page.locator(".answer").all()
    left, right = first.bounding_box(), second.bounding_box()
    assert left is not None
    assert right is not None
    assert left["y"] == right["y"]
    assert left["x"] < right["x"]


def test_an_edited_question_takes_the_place_of_what_came_after(
    page: Page, cluster: Cluster
) -> None:
    open_page(page, cluster, "playground")
    ask(page, "First")
    settled(page)
    ask(page, "Second")
    settled(page, 2)

    page.get_by_role("button", name="Edit").first.click()
    expect(page.get_by_label("Message")).to_have_value("First")
    ask(page, "Instead")

    settled(page)
    expect(page.locator(".question-text")).to_have_text(["Instead"])
    page.get_by_role("button", name="Regenerate").click()
    settled(page)
    expect(page.locator(".question-text")).to_have_text(["Instead"])


def test_conversations_are_there_again_when_the_page_is(page: Page, cluster: Cluster) -> None:
    open_page(page, cluster, "playground")
    ask(page, "Remember me")
    settled(page)
    expect(page.locator(".kept-title")).to_have_text("Remember me")

    page.reload()
    page.locator(".kept-title").click()

    expect(page.locator(".question-text")).to_have_text("Remember me")
    page.get_by_role("button", name="Delete: Remember me").click()
    expect(page.locator(".kept-title")).to_have_count(0)


def test_tools_are_shown_and_their_results_go_back(page: Page, cluster: Cluster) -> None:
    bodies: list[dict[str, object]] = []
    call = {"index": 0, "id": "c1", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}

    def answer(route: Route) -> None:
        bodies.append(route.request.post_data_json or {})
        delta = {"tool_calls": [call]} if len(bodies) == 1 else {"content": "It snows."}
        chunk = {"choices": [{"delta": delta}]}
        route.fulfill(body=f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n")

    page.route(CHAT, answer)
    open_page(page, cluster, "playground")
    ask(page, "Weather?")
    expect(page.locator(".tool-call")).to_contain_text("weather")

    page.get_by_label("What weather gives").fill("snow")
    page.get_by_role("button", name="Go on").click()

    expect(page.locator(".answer .markdown")).to_have_text("It snows.")
    messages = bodies[1]["messages"]
    assert isinstance(messages, list)
    assert messages[-1] == {"role": "tool", "tool_call_id": "c1", "content": "snow"}


def see(page: Page) -> None:
    """Have the model able to see."""

    def between(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()
        server.on_message(lambda text: socket.send(_with_sight(text)))

    page.route_web_socket(re.compile("/ws/control"), between)


def _with_sight(text: str | bytes) -> str:
    told = text if isinstance(text, str) else text.decode()
    return told.replace('"vision":false', '"vision":true')


def test_a_picture_goes_along_and_what_is_too_big_does_not(page: Page, cluster: Cluster) -> None:
    bodies: list[Any] = []

    def answer(route: Route) -> None:
        bodies.append(route.request.post_data_json)
        route.fulfill(body="data: [DONE]\n\n")

    see(page)
    page.route(CHAT, answer)
    open_page(page, cluster, "playground")
    expect(page.get_by_role("button", name="Add a picture")).to_be_enabled()
    files = page.locator('input[type="file"]')

    files.set_input_files({"name": "huge.png", "mimeType": "image/png", "buffer": bytes(6 << 20)})
    expect(page.locator(".note")).to_contain_text("huge.png is larger than 5 MiB.")
    files.set_input_files({"name": "page.svg", "mimeType": "image/svg+xml", "buffer": b"<svg/>"})
    expect(page.locator(".note").last).to_contain_text("page.svg is no PNG, JPEG, WebP or GIF.")
    files.set_input_files({"name": "dot.png", "mimeType": "image/png", "buffer": DOT})
    expect(page.locator(".composer img")).to_have_attribute("alt", "dot.png")
    ask(page, "What is it?")

    expect(page.locator(".question img")).to_have_attribute("alt", "dot.png")
    settled(page)
    url = "data:image/png;base64," + base64.b64encode(DOT).decode()
    assert bodies[0]["messages"][0]["content"] == [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]


def test_a_request_is_shown_as_code(page: Page, cluster: Cluster) -> None:
    says(page, "Hello")
    open_page(page, cluster, "playground")
    ask(page, "Hi")
    settled(page)

    page.get_by_role("button", name="Code", exact=True).click()

    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(f"curl -N '{cluster.management_url}/v1/chat/completions'")
    dialog.get_by_role("button", name="Python").click()
    expect(dialog).to_contain_text("from openai import OpenAI")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)


def test_a_model_shows_its_facts_and_what_its_template_makes(page: Page, cluster: Cluster) -> None:
    open_page(page, cluster, "models")
    page.get_by_role("link", name="demo").click()

    expect(page.locator(".facts")).to_contain_text("2,048 tokens")
    page.get_by_label("Messages").fill('[{"role": "user", "content": "<b>rare words</b>"}]')

    expect(page.locator(".preview-prompt pre")).to_contain_text("<b>rare words</b>")
    page.get_by_label("Messages").fill("[")
    expect(page.locator(".preview .failure")).to_contain_text("not JSON")


def test_the_log_is_followed_filtered_and_paused(page: Page, cluster: Cluster) -> None:
    open_page(page, cluster, "logs")
    lines = page.locator(".log-line")
    expect(lines.first).to_be_visible()

    page.get_by_role("button", name="Pause").click()
    page.get_by_label("Words in these lines").fill("no line has these words")
    expect(lines).to_have_count(0)
    page.get_by_role("button", name="Go on").click()
    page.get_by_label("Words in these lines").fill("/apply-template")
    body = {"messages": [{"role": "user", "content": "x"}]}
    page.request.post(f"{cluster.management_url}/apply-template", data=body)

    expect(lines.last).to_contain_text("/apply-template")
    lines.last.click()
    page.get_by_role("button", name="Lines of this request").click()
    expect(lines).to_have_count(1)


def test_a_flood_of_lines_costs_only_the_rows_that_are_seen(page: Page, cluster: Cluster) -> None:
    def flood(socket: WebSocketRoute) -> None:
        line = {
            "at": 1.0,
            "level": "info",
            "component": "fleet",
            "event": "<b>said</b>",
            "facts": {},
        }
        socket.send(json.dumps({"type": "snapshot", "seq": 1, "data": {"lines": [line] * 200}}))
        for seq in range(2, 52):
            socket.send(json.dumps({"type": "lines", "seq": seq, "lines": [line] * 100}))
        socket.send(json.dumps({"type": "missed", "count": 7}))

    page.route_web_socket(re.compile("/ws/logs"), flood)
    open_page(page, cluster, "logs")

    expect(page.locator(".logs-count")).to_contain_text("2000 of the latest lines")
    lines = page.locator(".log-line")
    expect(lines.last).to_contain_text("7 lines were missed")
    assert lines.count() < 100
    page.locator(".log-lines").evaluate("box => { box.scrollTop = 0; }")
    expect(lines.first).to_contain_text("<b>said</b>")
    assert lines.count() < 100
