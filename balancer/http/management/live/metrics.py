"""What `/ws/metrics` shows: the tree of figures, and the past of some of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from balancer.observability.samples import Samples
from balancer.observability.tree import Tree


class MetricsFeed:
    """Beats with the samples, and shows the latest."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self._tree: Tree | None = None
        self._point: dict[str, Any] = {}
        self._tick: Callable[[], None] = lambda: None

    def start(self, tick: Callable[[], None]) -> None:
        """Tick with each sample."""
        self._tick = tick
        self._samples.listen(self._on_sample)

    def stop(self) -> None:
        """Nobody looks."""
        self._samples.unlisten(self._on_sample)
        self._tree = None

    def read(self) -> Tree:
        """The latest sample's, or, before there is one, what is read now."""
        return {"now": self._samples.read() if self._tree is None else self._tree}

    def beside(self) -> dict[str, Any]:
        """The last ten minutes."""
        return {"series": msgspec.to_builtins(self._samples.series.read())}

    def news(self) -> dict[str, Any]:
        """The newest number of each series."""
        return {"point": self._point}

    def _on_sample(self, tree: Tree, values: dict[str, float | None], at: float) -> None:
        self._tree = tree
        self._point = {"at": at, "values": values}
        self._tick()
