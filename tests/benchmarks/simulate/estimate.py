"""How near estimated starts come to actual ones, for requests that all wait at one moment."""

from __future__ import annotations

from dataclasses import dataclass

from tests.benchmarks.simulate.engine import MODEL
from tests.benchmarks.simulate.figures import quantile
from tests.benchmarks.simulate.loads import Crowd, Draws, blocks, most_a_second, strangers
from tests.benchmarks.simulate.site import Job, Site, Size
from tests.benchmarks.simulate.speed import Speed

TENANTS = 20
WARMING = 1000
"""Requests before the crowd, from which the balancer learns what calls take."""


@dataclass(frozen=True)
class Starts:
    """Estimated and actual seconds until a slot, of each that waited."""

    listed: list[tuple[float, float]]
    """As `GET /requests` would say at the moment when all of them wait."""
    at_arrival: list[tuple[float, float]]
    """As each was told when it came: `Retry-After`, `deadline_unreachable`."""

    def listed_error(self) -> float:
        """Median of |estimated - actual| / actual."""
        return median_error(self.listed)

    def arrival_error(self) -> float:
        """The same of what each was told."""
        return median_error(self.at_arrival)


def median_error(pairs: list[tuple[float, float]]) -> float:
    """Of estimated and actual, as a share of the actual."""
    return quantile([abs(said - was) / was for said, was in pairs if was > 0], 0.5)


def starts(
    size: Size,
    speed: Speed,
    *,
    waiting: int = 500,
    rush: float = 2.0,
    tenants: int = TENANTS,
    seed: int = 1,
) -> Starts:
    """A quiet load, then `rush` times as many requests as can be answered until `waiting` wait,
    then none. An infinite rush lets all of them come in one moment, before anything was measured
    with all slots taken."""
    site, jobs = Site(size, speed, seed=seed), list[Job]()
    most = size.agents * most_a_second("strangers", speed, size.slots)
    strangers(site, Crowd(WARMING, tenants, 0.7 * most, seed))
    site.run(WARMING / (0.7 * most))
    draws, said_s = Draws(Crowd(0, tenants, 1.0, seed + 1), first=WARMING), dict[int, float]()
    clock = site.clock

    def look() -> None:
        outlook, hold_s = site.admission.outlook(MODEL), site.admission.hold_s(MODEL)
        for waiter, ahead in site.room.expected_order(MODEL, hold_s):
            said_s[waiter.ordinal] = clock.now_s + outlook.start_s(ahead.work_s)

    def ask() -> None:
        if len(site.room) >= waiting:
            look()
            return
        chain = blocks(f"crowd {len(jobs)}", draws.dice.randrange(1, 9))
        job = draws.job(draws.tenant(), chain, clock.now_s)
        jobs.append(job)
        site.arrive(job)
        clock.at(clock.now_s + draws.dice.expovariate(1.0) / (rush * most), ask)

    ask()
    site.run()
    asked_s = jobs[-1].arrived_s
    waited = [job for job in jobs if job.ordinal in said_s]
    return Starts(
        listed=[(said_s[job.ordinal] - asked_s, job.started_s - asked_s) for job in waited],
        at_arrival=[(job.predicted_s or 0.0, job.started_s - job.arrived_s) for job in waited],
    )
