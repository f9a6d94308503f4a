"""What a workload is: cells to measure, what one round does, and which figures come out."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.benchmarks.peers.sides import Shape
from tests.benchmarks.peers.target import Target
from tests.support.random_gguf import SIZES, random_gguf

OURS, PEER = "paddler-py", "llama-server"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One figure of a round, always positive."""

    name: str
    unit: str
    better: Literal["higher", "lower"]


@dataclass(frozen=True, kw_only=True)
class Played:
    """What one round gave. `texts`: generated texts that every side should agree on, if any."""

    metrics: dict[str, float]
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One setting that all sides are measured in. The dice are new for every pair of rounds."""

    label: str
    shape: Shape
    play: Callable[[Target, random.Random], Awaitable[Played]]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What the command line may change of a workload."""

    model: str = "small"
    threads: int = 1
    quick: bool = False
    """Fewer cells and shorter rounds: shows that it works, not how fast it is."""
    slots: tuple[int, ...] = ()
    """Instead of the workload's own slot counts, where it has several."""

    def model_path(self) -> Path:
        """A model of `random_gguf` by its name, or any GGUF by its path."""
        return random_gguf(self.model) if self.model in SIZES else Path(self.model).resolve()


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A workload by its name on the command line; `about` is one line."""

    name: str
    about: str
    metrics: tuple[Metric, ...]
    cells: Callable[[Scale], list[Cell]]
    sides: tuple[str, ...] = field(default=(OURS, PEER))
    """The first is compared with each of the others."""
