"""What agents, models and clients write is only read, on every page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from msgspec.structs import replace
from playwright.sync_api import BrowserContext, Page, expect

from balancer.fleet.queries import TextAnswer, TextQuestion
from protocol.agent_status import AgentStatus, GpuUse, Hardware, HostUse, Issue
from protocol.descriptions import ModelDescription
from protocol.models import ServedModel
from protocol.to_agent import DescribeModel
from protocol.to_balancer import Register
from tests.support.dashboard import faultless_page, open_page
from tests.support.fake_agent import FakeAgent, Script
from tests.support.lent_balancer import LentBalancer, lent_balancer

IMAGE = "<img src=http://evil.example/x.png onerror=alert(1)>"
MARKUP = (
    f"{IMAGE}<script>alert(2)</script><svg onload=alert(3)></svg>"
    '"><iframe src="http://evil.example/"></iframe><a href="javascript:alert(4)">go</a>'
    "\u202etxt.exe\u2066 \x1b[31m\x00\x07"
)
LONG = "W" * 120
MARKDOWN = (
    f"{MARKUP}\n\n![seen](http://evil.example/y.png) ![drawn](data:image/svg+xml,<svg/>) "
    "[go](javascript:alert(5)) [to](vbscript:alert(6)) <javascript:alert(7)>\n\n"
    f"{LONG * 5}\n\n| a | b |\n|---|---|\n| {LONG} | {IMAGE} |\n\n```\n{LONG}{IMAGE}\n```\n"
)
AGENT, MODEL = "__proto__", "constructor/" + "W" * 150
INERT = """() => [...document.querySelectorAll(
    "main *, .notes *")].filter((node) =>
        ["SCRIPT", "IFRAME", "OBJECT", "EMBED", "STYLE", "LINK", "BASE"].includes(node.tagName)
        || [...node.attributes].some((one) => one.name.startsWith("on") || one.name === "srcdoc")
        || (node.tagName === "IMG" && !node.src.startsWith(location.origin))
        || (node.tagName === "A" && !/^https?:/.test(node.href))
    ).map((node) => node.outerHTML.slice(0, 100))"""
TURNED = "/[\\u202a-\\u202e\\u2066-\\u2069]/.test(document.body.innerText)"


class HostileAgent(FakeAgent):
    """It writes what it likes wherever the link lets it."""

    def __init__(self, port: int) -> None:
        super().__init__(
            port,
            name=AGENT,
            model=ServedModel(
                name=MODEL,
                aliases=("toString",),
                version=IMAGE,
                context_tokens=2048,
                architecture=IMAGE,
                description=MARKUP[:256],
                quantization=IMAGE,
                modalities=("<b>",),
            ),
            script=Script(pieces=tuple(MARKDOWN[at : at + 7] for at in range(0, len(MARKDOWN), 7))),
        )

    def introduction(self) -> Register:
        return replace(
            super().introduction(),
            version=IMAGE,
            llama_cpp_version=IMAGE,
            hardware=Hardware(hostname=MARKUP[:200] + LONG[:50], cpu=MARKUP[:200]),
            labels={IMAGE: MARKUP[:128]},
        )

    def status(self) -> AgentStatus:
        gpu = GpuUse(name=MARKUP[:200], busy_percent=50.0)
        issue = Issue(code=IMAGE, message=f"{MARKUP} {LONG}", severity="warning")
        return replace(
            super().status(), issues=(issue,), host=HostUse(cpu_percent=1.0, gpus=(gpu,))
        )

    def answer(self, question: TextQuestion) -> TextAnswer:
        if not isinstance(question, DescribeModel):
            return super().answer(question)
        return ModelDescription(
            chat_template=MARKDOWN, bos_token=IMAGE, eos_token=MARKUP[:200], tool_format=IMAGE
        )


@pytest.fixture(scope="module")
def lent() -> Iterator[LentBalancer]:
    """A balancer whose only agent is hostile, and whose log has hostile lines."""
    with lent_balancer(HostileAgent) as made:
        assert made.run(made.balancer.chat(model=MODEL)).status == 200
        ring = made.balancer.app.wiring.live.logs.ring
        for level in ("info", "error"):
            ring.keep(
                None,
                level,
                {
                    "event": MARKUP,
                    "logger": f"balancer.{IMAGE}",
                    "request_id": IMAGE,
                    IMAGE: MARKUP,
                    "reason": LONG * 10,
                },
            )
        yield made


def is_inert(page: Page, seen: str = "<img src=http://evil.example/x.png") -> None:
    """It stands there as text, made nothing, and broke nothing."""
    expect(page.locator("main")).to_contain_text(seen)
    assert page.evaluate(INERT) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("width", [1360, 390])
def test_it_is_text_on_every_page(context: BrowserContext, lent: LentBalancer, width: int) -> None:
    model = quote(MODEL, safe="")
    address = quote(IMAGE, safe="")
    with faultless_page(context, lent) as page:
        page.set_viewport_size({"width": width, "height": 844})
        for place, seen in (
            ("", AGENT),
            ("agents", IMAGE),
            (f"agents/{AGENT}", IMAGE),
            (f"agents/{address}", IMAGE),
            ("requests", MODEL),
            (f"requests/{address}", IMAGE),
            ("models", IMAGE),
            (f"models/{model}", "txt.exe"),
            (f"models/{address}", IMAGE),
            ("logs", IMAGE),
            ("settings", "queue_timeout_s"),
            (f"settings/{address}", "queue_timeout_s"),
        ):
            open_page(page, lent, place)
            is_inert(page, seen)
            assert not page.evaluate(TURNED), place


def test_a_line_of_the_log_that_is_opened_is_text(
    context: BrowserContext, lent: LentBalancer
) -> None:
    with faultless_page(context, lent) as page:
        open_page(page, lent, "logs")
        page.locator(".log-line").last.click()
        is_inert(page)


@pytest.mark.parametrize("width", [1360, 390])
def test_an_answer_and_a_template_are_text(
    context: BrowserContext, lent: LentBalancer, width: int
) -> None:
    with faultless_page(context, lent) as page:
        page.set_viewport_size({"width": width, "height": 844})
        open_page(page, lent, "playground")
        page.get_by_label("Message").fill(MARKUP)
        page.get_by_label("Message").press("Enter")
        expect(page.locator('.answer[aria-busy="false"] .answer-end')).to_contain_text("tokens")
        is_inert(page)
        expect(page.locator(".answer .markdown table")).to_have_count(1)
        open_page(page, lent, f"models/{quote(MODEL, safe='')}")
        expect(page.locator(".template")).to_contain_text(re.compile(re.escape(IMAGE)))
        is_inert(page)
