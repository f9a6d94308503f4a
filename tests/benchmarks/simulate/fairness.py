"""Does a crowd hold up whoever asks for little, and do two crowds get the same?"""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.benchmarks.simulate.figures import quantile
from tests.benchmarks.simulate.loads import blocks
from tests.benchmarks.simulate.site import Job, Site, Size
from tests.benchmarks.simulate.speed import Speed

LONG_TOKENS = (200, 600)
SHORT_TOKENS = (4, 12)
QUEUED = 200


@dataclass(frozen=True)
class Waits:
    """Of the tenant with short requests, in seconds."""

    crowded_s: float
    just_full_s: float

    @property
    def ratio(self) -> float:
        return self.crowded_s / self.just_full_s


@dataclass(frozen=True)
class Apart:
    """Of two tenants that both always wait: the most that their services differed over any
    stretch of time, and what docs/fairness.md allows."""

    seconds: float
    bound_s: float


def short_waits(size: Size, speed: Speed, *, short_requests: int, seed: int = 1) -> Waits:
    """The 95th percentile with `QUEUED` long requests waiting, and with just enough to fill the
    slots."""
    crowded = _run(size, speed, queued=QUEUED, short_requests=short_requests, seed=seed)
    just_full = _run(size, speed, queued=0, short_requests=short_requests, seed=seed)
    return Waits(crowded, just_full)


def _run(size: Size, speed: Speed, *, queued: int, short_requests: int, seed: int) -> float:
    site, requests = Site(size, speed, seed=seed), _Requests(seed)
    until_s = float(short_requests)

    def refill() -> None:
        while site.has_free_slot or site.waiting["crowd"] < queued:
            job = requests.job("crowd", LONG_TOKENS, site.clock.now_s)
            job.on_end = refill
            site.arrive(job)

    def ask() -> None:
        job = requests.job("lonely", SHORT_TOKENS, site.clock.now_s)
        job.on_end = refill
        site.arrive(job)
        site.clock.at(site.clock.now_s + 1.0, ask)

    refill()
    site.clock.at(1.0, ask)
    site.run(until_s)
    return quantile(site.figures.wait_s["lonely"], 0.95)


def two_crowds(size: Size, speed: Speed, *, for_s: float, seed: int = 1) -> Apart:
    """One with long calls, one with short ones."""
    site, requests = Site(size, speed, seed=seed), _Requests(seed)
    most_charged_s, differences = 0.0, [0.0]

    def refill(tenant: str, tokens: tuple[int, int]) -> None:
        nonlocal most_charged_s
        while site.waiting[tenant] < QUEUED // 4:
            job = requests.job(tenant, tokens, site.clock.now_s)

            def on_end(job: Job = job) -> None:
                nonlocal most_charged_s
                most_charged_s = max(most_charged_s, job.charged_ms / 1000)
                refill(tenant, tokens)

            job.on_end = on_end
            site.arrive(job)

    def look() -> None:
        given = [site.services.given_s(one, site.clock.now_s) for one in ("long", "short")]
        differences.append(given[0] - given[1])
        site.clock.in_background(site.clock.now_s + 0.05, look)

    refill("long", LONG_TOKENS)
    refill("short", SHORT_TOKENS)
    look()
    figures = site.run(for_s)
    slots = size.agents * size.slots
    bound_s = (6 * slots + 2) * max(figures.longest_call_s, most_charged_s)
    return Apart(max(differences) - min(differences), bound_s)


class _Requests:
    """Prompts of one block, answers of evenly distributed lengths."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self._count = 0

    def job(self, tenant: str, tokens: tuple[int, int], now_s: float) -> Job:
        self._count += 1
        chain = blocks(f"{tenant} {self._count}", 1)
        return Job(self._count, tenant, chain, self._dice.randint(*tokens), now_s)
