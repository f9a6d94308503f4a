"""The tree of figures, with a clock that the test moves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from balancer.dispatch.dispatcher import Dispatcher
from balancer.fleet.roster import Roster
from balancer.observability.metrics import Metrics
from balancer.observability.samples import Samples
from balancer.services.sampling import Gatherer, Sampling
from balancer.settings import LiveSettings, Settings
from tests.support.virtual_time import in_virtual_time


class Figures:
    """Of a balancer without agents; what is counted the test counts."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.metrics = Metrics()
        settings = LiveSettings(Settings())
        roster = Roster(settings=settings, metrics=self.metrics, now=lambda: self.now_s)
        self.gatherer = Gatherer(
            roster=roster,
            dispatcher=Dispatcher(roster=roster, settings=settings, metrics=self.metrics),
            metrics=self.metrics,
            now=lambda: self.now_s,
        )

    def read(self) -> Any:
        return self.gatherer.read()

    def pass_time(self, seconds: float, *, requests: int = 0) -> None:
        """A beat of the loop."""
        self.now_s += seconds
        for _ in range(requests):
            self.metrics.totals.answered(0.1, is_failure=False)
            self.metrics.of_agents.of("gpu-1").generated += 10

    def mark(self) -> None:
        self.gatherer.mark()


@pytest.fixture
def figures() -> Figures:
    return Figures()


def test_a_steady_rate_is_shown_as_it_is_although_no_second_is_quite_one(figures: Figures) -> None:
    for _ in range(20):
        figures.pass_time(1.001, requests=10)
        tree = figures.read()
        figures.mark()
    assert tree["requests"]["per_second"] == pytest.approx(10, rel=0.02)
    assert tree["tokens"]["per_second"] == pytest.approx(100, rel=0.02)
    assert tree["providers"]["gpu-1"]["tokens_per_second"] == pytest.approx(100, rel=0.02)


def test_a_process_that_stood_still_shows_no_burst(figures: Figures) -> None:
    for _ in range(20):
        figures.pass_time(1.0, requests=10)
        figures.mark()
    figures.pass_time(60.0)
    assert figures.read()["requests"]["per_second"] == 0
    figures.pass_time(0.5, requests=10)
    assert figures.read()["requests"]["per_second"] < 1


def test_the_first_second_counts_as_one(figures: Figures) -> None:
    figures.pass_time(0.001, requests=1)
    assert figures.read()["requests"]["per_second"] == 1


def test_a_hundred_thousand_names_leave_a_small_tree_and_no_burst(figures: Figures) -> None:
    for number in range(100_000):
        figures.metrics.of_agents.of(f"agent-{number}").generated += 1
    figures.pass_time(1.0)
    figures.mark()
    figures.pass_time(5.0)
    figures.metrics.of_agents.of("one more").generated += 5
    tree = figures.read()
    assert len(tree["providers"]) <= 257
    assert tree["providers"]["one more"]["tokens_per_second"] == 1
    assert tree["providers"]["other"]["tokens_per_second"] is None
    assert tree["tokens"]["per_second"] == 1


@in_virtual_time
async def test_a_sample_that_fails_ends_nothing(figures: Figures) -> None:
    taken: list[float] = []

    def fail_at_first(_tree: object, _values: object, at: float) -> None:
        taken.append(at)
        if len(taken) == 1:
            raise RuntimeError("a defect")

    samples = Samples(figures.read)
    samples.listen(fail_at_first)
    sampling = Sampling(figures.gatherer, samples, asyncio.get_running_loop().time)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(sampling.run())
        await asyncio.sleep(2.5)
        running.cancel()
    assert len(taken) == 2
