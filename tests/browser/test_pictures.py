"""A picture of every page, light, dark and on a phone, and what can be said of pictures by rule.

`make pictures` writes them to where the guide shows them.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Literal

import pytest
from msgspec import Struct
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.support.cluster import PROJECT, Cluster
from tests.support.dashboard import faultless_page
from tests.support.lively_agent import QUESTION

SEEN = PROJECT / "out" / "pictures"
PUBLISHED = os.environ.get("PICTURES")
"""The folder of the project where they are shown; None: they are only looked at."""
SETTLED_MS = 350
"""A change of rows comes within it."""
RULES = (PROJECT / "tests" / "browser" / "picture_rules.js").read_text("utf-8")


class Look(Struct, frozen=True):
    """How the browser is. `sharpness` is in device pixels."""

    name: str
    scheme: Literal["light", "dark"]
    width: int
    height: int
    sharpness: int


LOOKS = (
    Look("light", "light", 1360, 850, 1),
    Look("dark", "dark", 1360, 850, 1),
    Look("phone", "light", 390, 844, 2),
)


class Lively(Cluster):
    """One in the middle of its day. `moved` is a request that went on with another agent."""

    moved: str


@pytest.fixture(scope="module")
def lively(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lively]:
    """In a process of its own."""
    folder = tmp_path_factory.mktemp("lively")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.lively_cluster", str(folder)],
            cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            stdout=subprocess.PIPE,
            stderr=log,
        )
    try:
        assert process.stdout is not None
        ports = json.loads(process.stdout.readline())
        made = Lively(folder)
        made.inference_port, made.management_port = ports["inference"], ports["management"]
        made.moved = json.loads(process.stdout.readline())["moved"]
        yield made
    finally:
        process.kill()
        process.communicate()


def chat(page: Page) -> None:
    """Ask one model."""
    page.get_by_label("Model", exact=True).select_option("qwen3-8b")
    ask(page, 1)


def compare(page: Page) -> None:
    """Ask two, with room for both."""
    page.get_by_role("button", name="Compare").click()
    page.get_by_label("Model", exact=True).select_option("qwen3-8b")
    page.get_by_label("Second model").select_option("gemma-3-4b")
    ask(page, 2)


def ask(page: Page, answers: int) -> None:
    """The question that agents have an answer to."""
    page.get_by_label("Message").fill(QUESTION)
    page.get_by_label("Message").press("Enter")
    expect(page.locator('.answer[aria-busy="false"]')).to_have_count(answers)


def follow(page: Page) -> None:
    """Nobody has to: the end is in sight."""
    expect(page.locator(".log-line").last).to_be_in_viewport()


class View(Struct, frozen=True):
    """A page: its name, its address, what is there when it is, and what to do then."""

    name: str
    place: str
    seen: str
    act: Callable[[Page], None] | None = None


VIEWS = (
    View("agents", "agents", ".agent"),
    View("requests", "requests", "[aria-label='Finished requests'] tbody tr"),
    View("timeline", "requests/{moved}", ".timeline li"),
    View("models", "models", ".model"),
    View("model", "models/qwen3-8b", ".template pre"),
    View("playground", "playground", ".composer", chat),
    View("compared", "playground", ".composer", compare),
    View("logs", "logs", ".log-line", follow),
    View("settings", "settings", ".settings tbody tr"),
    View("overview", "", ".chart canvas"),
)
"""The overview is last: its rates are those of seconds gone by."""


@pytest.mark.parametrize(
    "look",
    [
        pytest.param(look, id=look.name, marks=[pytest.mark.long] if look.name == "dark" else [])
        for look in LOOKS
    ],
)
def test_every_page_is_fit_to_be_seen(browser: Browser, lively: Lively, look: Look) -> None:
    context = browser.new_context(
        color_scheme=look.scheme,
        viewport={"width": look.width, "height": look.height},
        device_scale_factor=look.sharpness,
        has_touch=look.name == "phone",
        locale="en-GB",
        reduced_motion="reduce",
    )
    context.add_init_script(RULES)
    faults: dict[str, list[str]] = {}
    try:
        with faultless_page(context, lively) as page:
            for view in VIEWS:
                place = view.place.format(moved=lively.moved)
                page.goto("about:blank")
                page.goto(f"{lively.management_url}/#/{place}")
                expect(page.locator(view.seen).first).to_be_visible()
                page.wait_for_timeout(SETTLED_MS)
                found = page.evaluate("pageShifts()")
                if view.act is not None:
                    view.act(page)
                page.mouse.move(0, 0)
                keep(page.screenshot(), f"{view.name}-{look.name}")
                found += page.evaluate("pictureFaults()")
                if found:
                    faults[view.name] = found
    finally:
        context.close()
    assert faults == {}, json.dumps(faults, indent=1)


def keep(png: bytes, name: str) -> None:
    """As it is; for the guide without loss in few bytes, which takes longer."""
    if PUBLISHED is None:
        SEEN.mkdir(parents=True, exist_ok=True)
        (SEEN / f"{name}.png").write_bytes(png)
        return
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.save(PROJECT / PUBLISHED / f"{name}.webp", lossless=True, quality=80, method=4)
