"""Every policy over the same load, and how many agents a load needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from balancer.settings import PolicyName
from tests.benchmarks.simulate.figures import Figures, quantile
from tests.benchmarks.simulate.loads import LOADS, Crowd, Recorded, failures, replayed
from tests.benchmarks.simulate.site import Site, Size
from tests.benchmarks.simulate.speed import Speed

MOST_AGENTS = 4096


@dataclass(frozen=True)
class Scene:
    """What all policies are compared on."""

    size: Size
    speed: Speed
    crowd: Crowd
    failure_s: float = 0.0
    """Between two deaths of agents; 0: nobody dies."""


def compared(
    policies: Iterable[PolicyName], scene: Scene, load: str
) -> Iterator[tuple[str, Figures]]:
    """Each policy's figures over one of `LOADS`."""
    for policy in policies:
        site = Site(scene.size, scene.speed, policy=policy, seed=scene.crowd.seed)
        LOADS[load](site, scene.crowd)
        if scene.failure_s:
            failures(site, every_s=scene.failure_s, seed=scene.crowd.seed)
        yield policy, site.run()


def compared_on_record(
    policies: Iterable[PolicyName], scene: Scene, routes: Sequence[Recorded]
) -> Iterator[tuple[str, Figures]]:
    """Each policy's figures over what was recorded."""
    for policy in policies:
        site = Site(scene.size, scene.speed, policy=policy, seed=scene.crowd.seed)
        replayed(site, routes)
        yield policy, site.run()


def agents_needed(
    policy: PolicyName, scene: Scene, load: str, *, ttft_p99_s: float
) -> Iterator[tuple[int, Figures]]:
    """Sizes that were tried, each with its figures; the last is the smallest whose 99th percentile
    of the time to first token is no more. Ends without one at `MOST_AGENTS`."""

    def tried(agents: int) -> Figures:
        sized = replace(scene, size=replace(scene.size, agents=agents))
        return next(compared([policy], sized, load))[1]

    def is_enough(figures: Figures) -> bool:
        return quantile(figures.ttft_s, 0.99) <= ttft_p99_s

    low, high = 0, 1
    while not is_enough(figures := tried(high)):
        yield high, figures
        if high >= MOST_AGENTS:
            return
        low, high = high, 2 * high
    best = figures
    while high - low > 1:
        middle = (low + high) // 2
        figures = tried(middle)
        if is_enough(figures):
            high, best = middle, figures
        else:
            low = middle
        yield middle, figures
    yield high, best
