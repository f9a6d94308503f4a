"""What a simulation is asked for: times, hits, fairness, decisions."""

from __future__ import annotations

from dataclasses import dataclass, field

WINDOW_S = 60.0
"""Services are compared over stretches of this length, among those who waited all of it."""


def quantile(values: list[float], share: float) -> float:
    """Of values in any order; 0 where there are none."""
    return sorted(values)[int(share * (len(values) - 1))] if values else 0.0


@dataclass
class Figures:
    """Of one run; times in seconds."""

    ttft_s: list[float] = field(default_factory=list)
    wait_s: dict[str, list[float]] = field(default_factory=dict)
    """By tenant, from arrival to slot."""
    starts_s: list[tuple[float, float]] = field(default_factory=list)
    """Predicted and actual, of those who waited."""
    blocks: int = 0
    cached_blocks: int = 0
    decision_s: list[float] = field(default_factory=list)
    moves: int = 0
    refused: int = 0
    longest_call_s: float = 0.0
    apart_s: float = 0.0
    """The largest difference of services over a window."""
    virtual_s: float = 0.0
    cpu_s: float = 0.0
    """What the simulation itself took."""

    @property
    def hit_rate(self) -> float:
        """Blocks of prompts that were cached, of all."""
        return self.cached_blocks / max(self.blocks, 1)

    @property
    def prediction_error(self) -> float:
        """Median of |predicted - actual| / actual."""
        return quantile([abs(said - was) / was for said, was in self.starts_s if was > 0], 0.5)


class Services:
    """What each tenant is given, in seconds of slots, and the most that two who both want more
    were apart over any window."""

    def __init__(self) -> None:
        self._ended_s: dict[str, float] = {}
        self._running: dict[str, tuple[int, float]] = {}
        """How many, and the sum of the times at which they began."""
        self._throughout: dict[str, float] = {}
        """Who has waited since the window began, and what it had then."""
        self.most_apart_s = 0.0

    def given_s(self, tenant: str, now_s: float) -> float:
        """Until now, calls that run included."""
        count, began_s = self._running.get(tenant, (0, 0.0))
        return self._ended_s.get(tenant, 0.0) + count * now_s - began_s

    def begins(self, tenant: str, now_s: float) -> None:
        """A call of the tenant has a slot."""
        count, began_s = self._running.get(tenant, (0, 0.0))
        self._running[tenant] = count + 1, began_s + now_s

    def ends(self, tenant: str, began_s: float, now_s: float) -> None:
        """It has it no longer."""
        count, sum_s = self._running[tenant]
        self._running[tenant] = count - 1, sum_s - began_s
        self._ended_s[tenant] = self._ended_s.get(tenant, 0.0) + now_s - began_s

    def waits_no_more(self, tenant: str) -> None:
        """The tenant's last waiting request left."""
        self._throughout.pop(tenant, None)

    def look(self, waiting: list[str], now_s: float) -> None:
        """A window is over: compare, and begin the next with those who wait now."""
        gained = [self.given_s(one, now_s) - had for one, had in self._throughout.items()]
        if len(gained) > 1:
            self.most_apart_s = max(self.most_apart_s, max(gained) - min(gained))
        self._throughout = {one: self.given_s(one, now_s) for one in waiting}


def table(rows: list[tuple[str, Figures]]) -> str:
    """One line for each policy."""
    titles = (
        f"{'policy':14s} {'TTFT p50':>9} {'p99 s':>8} {'hits %':>7} {'apart s':>8} {'moves':>6} "
        f"{'decision us':>11} {'p99 us':>7} {'virtual s':>10} {'CPU s':>7}"
    )
    return "\n".join([titles, *(_row(name, figures) for name, figures in rows)])


def _row(name: str, figures: Figures) -> str:
    return (
        f"{name:14s} {quantile(figures.ttft_s, 0.5):9.3f} {quantile(figures.ttft_s, 0.99):8.2f} "
        f"{100 * figures.hit_rate:7.1f} {figures.apart_s:8.1f} {figures.moves:6d} "
        f"{1e6 * quantile(figures.decision_s, 0.5):11.1f} "
        f"{1e6 * quantile(figures.decision_s, 0.99):7.1f} "
        f"{figures.virtual_s:10.0f} {figures.cpu_s:7.1f}"
    )
