"""What an engine takes: the numbers of the simulated ones, kept in a small JSON file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.support.cluster import PROJECT

CALIBRATION = PROJECT / "out" / "benchmarks" / "engine-speed.json"


@dataclass(frozen=True)
class Speed:
    """Milliseconds. The defaults are `small` of docs/benchmarks.md on one thread."""

    block_ms: float = 900.0
    """A block of 512 bytes of a prompt that is not cached, with nothing beside it."""
    token_ms: float = 18.0
    """A step with one call."""
    slot_ms: float = 5.7
    """What each further call adds to a step."""
    prefill_share: float = 0.5
    """Of the time, while calls generate and prompts wait."""
    source: str = "docs/benchmarks.md"

    def step_ms(self, calls: int) -> float:
        """One token of each of so many calls."""
        return self.token_ms + self.slot_ms * (calls - 1)


def load(path: Path = CALIBRATION) -> Speed:
    """What was calibrated, the defaults where nothing was."""
    return Speed(**json.loads(path.read_text())) if path.exists() else Speed()


def save(speed: Speed, path: Path = CALIBRATION) -> None:
    """For every later simulation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(speed), indent=2) + "\n")
