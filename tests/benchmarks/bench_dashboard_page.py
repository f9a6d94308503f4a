"""What a page of the dashboard takes while 64 agents serve 500 requests: transfers, long tasks.

The balancer and the crowd are processes of their own, the browser is Debian's Chromium. Each run
opens the page anew, with nothing known. `--minutes` tells pages of half an hour instead, as fast as
they take it, and weighs what they hold.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct
from playwright.sync_api import Browser, ViewportSize, expect, sync_playwright

from tests.support.cluster import PROJECT, Cluster, wait_until
from tests.support.page_traffic import MOST_BYTES, MOST_REQUESTS, PLACES, Traffic, open_whole
from tests.support.simulated_cluster import MINUTE_S, SimulatedCluster
from tests.support.told_page import ToldPage

CHROMIUM = "/usr/bin/chromium"
VIEW: ViewportSize = {"width": 1360, "height": 860}
LIVE_PLACES = ("overview", "agents", "requests", "logs")
AGENTS, REQUESTS = 64, 500
TOLD_AGENTS, TOLD_REQUESTS = 16, 100
PART = 100
"""About as many rows as a button brings."""
_SHOW_MORE = "document.querySelector('.more button')?.click()"
_OBSERVE = """window.longTasks = [];
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.longTasks.push(entry.duration);
}).observe({ type: "longtask", buffered: true });"""


class Run(Struct, frozen=True, kw_only=True):
    """One opening of a page: until it was whole, and in the time after. Long tasks are those of
    over 50 ms by the clock; `busiest_ms` is of the processor's time, whoever else has it."""

    requests: int
    body_bytes: int
    transferred_bytes: int
    later_requests: int
    told_bytes_a_second: float
    messages_a_second: float
    long_tasks: int
    longest_ms: float
    busiest_ms: float


def busiest_ms(trace: bytes) -> float:
    """The processor's time of the longest task on the page's main thread."""
    events = json.loads(trace)["traceEvents"]
    mains = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    tasks: dict[tuple[int, int], list[float]] = defaultdict(list)
    for event in events:
        thread = (event["pid"], event["tid"])
        if thread in mains and event["ph"] == "X" and event["name"].endswith("RunTask"):
            tasks[thread].append(event.get("tdur", 0) / 1000)
    busiest: list[float] = max(tasks.values(), key=len, default=[])
    return max(busiest, default=0.0)


def measured(browser: Browser, cluster: Cluster, place: str, seconds: float) -> Run:
    """A page that is opened and watched; of requests all rows are asked for."""
    context = browser.new_context(viewport=VIEW)
    try:
        page = context.new_page()
        page.add_init_script(_OBSERVE)
        traffic = Traffic(context, page)
        browser.start_tracing(page=page, categories=["toplevel"])
        open_whole(page, cluster, place)
        requests, bodies, transferred = (
            traffic.requests,
            traffic.body_bytes,
            traffic.transferred_bytes,
        )
        told, told_bytes = traffic.told, traffic.told_bytes
        for _ in range(REQUESTS // PART):
            page.evaluate(_SHOW_MORE)
            page.wait_for_timeout(100)
        page.wait_for_timeout(1000 * seconds)
        tasks: list[float] = page.evaluate("window.longTasks")
        return Run(
            requests=requests,
            body_bytes=bodies,
            transferred_bytes=transferred,
            later_requests=traffic.requests - requests,
            told_bytes_a_second=(traffic.told_bytes - told_bytes) / seconds,
            messages_a_second=(traffic.told - told) / seconds,
            long_tasks=len(tasks),
            longest_ms=max(tasks, default=0.0),
            busiest_ms=busiest_ms(browser.stop_tracing()),
        )
    finally:
        context.close()


def row_of(name: str, runs: list[Run]) -> str:
    """A page's line: medians, and of the longest task the range."""

    def median(field: str) -> float:
        return float(statistics.median(getattr(run, field) for run in runs))

    longest = [run.longest_ms for run in runs]
    return (
        f"{name:<11}{median('requests'):>9.0f}{median('body_bytes') / 1000:>8.1f} kB"
        f"{median('transferred_bytes') / 1000:>9.1f} kB"
        f"{max(run.later_requests for run in runs):>9}"
        f"{median('told_bytes_a_second') / 1000:>9.1f} kB/s{median('messages_a_second'):>7.1f}/s"
        f"{median('long_tasks'):>7.0f}{median('longest_ms'):>9.0f} ms"
        f"   ({min(longest):.0f} to {max(longest):.0f}){median('busiest_ms'):>7.0f} ms"
    )


@contextmanager
def busy_cluster() -> Iterator[Cluster]:
    """A balancer whose agents and requests are all there."""
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(Path(folder))
        crowd: subprocess.Popen[bytes] | None = None
        try:
            cluster.start_balancer()
            ports = [str(cluster.management_port), str(cluster.inference_port)]
            sizes = ["--agents", str(AGENTS), "--requests", str(REQUESTS)]
            command = [sys.executable, "-m", "tests.support.live_crowd", *ports, *sizes]
            crowd = subprocess.Popen(command, cwd=PROJECT)
            wait_until(lambda: _running(cluster) == REQUESTS, what="all requests run")
            yield cluster
        finally:
            if crowd is not None:
                crowd.terminate()
                crowd.wait(10)
            cluster.close()


def _running(cluster: Cluster) -> int:
    return len(cluster.get_json(f"{cluster.management_url}/requests")["data"])


def watch(browser: Browser, names: list[str], arguments: argparse.Namespace) -> None:
    """Each page in turn, so many times."""
    print(
        f"medians of {arguments.runs} runs of {arguments.seconds:.0f} s; budget: {MOST_REQUESTS} "
        f"requests and {MOST_BYTES // 1000} kB of compressed bodies, none later\n"
        f"{'page':<11}{'requests':>9}{'bodies':>11}{'with headers':>12}{'later':>9}"
        f"{'sockets':>14}{'told':>9}{'long':>7}{'longest':>12}{'range':>14}{'processor':>11}",
        flush=True,
    )
    with busy_cluster() as cluster:
        for name in names:
            runs = [
                measured(browser, cluster, _place(name), arguments.seconds)
                for _ in range(arguments.runs)
            ]
            print(row_of(name, runs), flush=True)


def weigh(browser: Browser, names: list[str], minutes: int) -> None:
    """Each page is told of so many minutes, and weighed on the way."""
    marks = sorted({m for m in (5, 10, 20, 30) if m < minutes} | {minutes})
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(Path(folder))
        try:
            cluster.start_balancer()
            for name in (name for name in names if name in LIVE_PLACES):
                context = browser.new_context(viewport=VIEW)
                page = context.new_page()
                told = ToldPage(
                    page,
                    context.new_cdp_session(page),
                    SimulatedCluster(agents=TOLD_AGENTS, requests=TOLD_REQUESTS),
                )
                page.goto(f"{cluster.management_url}/#/{_place(name)}")
                expect(page.locator(PLACES[_place(name)]).first).to_be_visible()
                for mark in marks:
                    told.tell(mark * MINUTE_S - told.told_s)
                    weight = told.weight()
                    print(
                        f"{name:<11}minute {mark:>3}: {weight.heap_bytes / 1e6:6.2f} MB of heap, "
                        f"{weight.nodes:>5} nodes, {weight.listeners:>4} listeners",
                        flush=True,
                    )
                context.close()
        finally:
            cluster.close()


def _place(name: str) -> str:
    return "" if name == "overview" else name


def main(given: list[str] | None = None) -> None:
    """Pages by name, all of them without any."""
    names = [place or "overview" for place in PLACES]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="*", default=names, metavar="page")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=30.0, help="that a page is watched")
    parser.add_argument("--minutes", type=int, help="to be told of; nothing else is measured then")
    arguments = parser.parse_args(given)
    if unknown := set(arguments.pages) - set(names):
        parser.error(f"there is no page {unknown.pop()!r}; there are {', '.join(names)}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            if arguments.minutes:
                weigh(browser, arguments.pages, arguments.minutes)
            else:
                watch(browser, arguments.pages, arguments)
        finally:
            browser.close()


if __name__ == "__main__":
    main()
