"""Who plays when: fresh starts of all sides, and in each of them rounds in turn, A B A B."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.benchmarks.peers.exchange import Refused, Unusable
from tests.benchmarks.peers.machine import Cores
from tests.benchmarks.peers.process import CannotStart
from tests.benchmarks.peers.sides import Side, start_side
from tests.benchmarks.peers.target import Target, at_once
from tests.benchmarks.peers.workload import Cell, Played
from tests.support.random_gguf import models_folder, prompt_tokens

FAILURES = (CannotStart, Refused, Unusable, TimeoutError, OSError)


@dataclass(frozen=True, kw_only=True)
class Round:
    """One side's play in one pair of one start."""

    start: int
    pair: int
    side: str
    metrics: dict[str, float]
    digests: tuple[str, ...]
    engine_cpu_s: float
    other_cpu_s: float


@dataclass(kw_only=True)
class CellResult:
    """All rounds of a cell, and why a side is missing."""

    label: str
    sides: tuple[str, ...]
    rounds: list[Round] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    commands: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How often, for how long at most, on which cores."""

    starts: int
    pairs: int
    cores: Cores
    patience_s: float
    seed: int
    log_folder: Path


def compete(cell: Cell, sides: Sequence[str], plan: Plan, say: Callable[[str], None]) -> CellResult:
    """Measure a cell. A side that fails is named in `problems` and left out from then on."""
    names = _named(sides)
    result = CellResult(label=cell.label, sides=tuple(names))
    for start in range(plan.starts):
        with ExitStack() as stack:
            running: dict[str, Side] = {}
            for name, written in names.items():
                if name not in result.problems:
                    with _excused(name, result, say):
                        folder = plan.log_folder / _file_name(f"{cell.label} {start} {name}")
                        side = start_side(written, cell.shape, plan.cores, folder)
                        stack.callback(side.close)
                        running[name] = side
                        result.commands[name] = side.commands
                        _warm_up(cell, side, plan)
                        side.pin()
            for pair in range(plan.pairs):
                for name, side in running.items():
                    if name not in result.problems:
                        with _excused(name, result, say):
                            result.rounds.append(_round(cell, name, side, plan, start, pair))
                            say(_line(cell, result.rounds[-1]))
    return result


def _round(cell: Cell, name: str, side: Side, plan: Plan, start: int, pair: int) -> Round:
    dice = random.Random(f"{plan.seed} {cell.label} {start} {pair}")
    engine, every = side.engine_cpu_s(), side.cpu_s()
    played = _play(cell, side, dice, plan)
    engine, every = side.engine_cpu_s() - engine, side.cpu_s() - every
    side.check()
    return Round(
        start=start,
        pair=pair,
        side=name,
        metrics=played.metrics,
        digests=tuple(hashlib.sha256(t.encode()).hexdigest()[:12] for t in played.texts),
        engine_cpu_s=round(engine, 2),
        other_cpu_s=round(every - engine, 2),
    )


def _play(cell: Cell, side: Side, dice: random.Random, plan: Plan) -> Played:
    async def bounded() -> Played:
        async with asyncio.timeout(plan.patience_s):
            return await cell.play(_target(cell, side), dice)

    return asyncio.run(bounded())


def _warm_up(cell: Cell, side: Side, plan: Plan) -> None:
    """Unmeasured: every slot generates a little, or an embedding round is played."""
    dice = random.Random(f"{plan.seed} warm-up")
    if cell.shape.embeddings:
        _play(cell, side, dice, plan)
        return

    async def generate(target: Target, dice: random.Random) -> Played:
        prompts = [prompt_tokens(dice, 32) for _ in range(cell.shape.slots)]
        answers = await at_once([target.complete(prompt, 16) for prompt in prompts])
        return Played(metrics={"tokens": sum(answer.tokens for answer in answers)})

    warm = Cell(label=cell.label, shape=cell.shape, play=generate)
    _play(warm, side, dice, plan)


def _target(cell: Cell, side: Side) -> Target:
    """The side in its dialect; another model's tokens are not our words, it gets their text."""
    has_words = cell.shape.model.parent == models_folder()
    dialect = replace(side.dialect, token_ids=side.dialect.token_ids and has_words)
    return Target(host=side.host, port=side.port, dialect=dialect)


class _excused:
    """Turns a side's failure into a line in `problems`; other sides go on."""

    def __init__(self, name: str, result: CellResult, say: Callable[[str], None]) -> None:
        self._name, self._result, self._say = name, result, say

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> bool:
        if error is None:
            return False
        leaves = list(_leaves(error))
        if not all(isinstance(leaf, FAILURES) for leaf in leaves):
            return False
        leaf = leaves[0]
        self._result.problems[self._name] = f"{type(leaf).__name__}: {leaf}"[:600]
        self._say(f"  {self._name} is left out: {self._result.problems[self._name]}")
        return True


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _named(sides: Sequence[str]) -> dict[str, str]:
    """Names for the sides, numbered where the same is written twice (A against A).

    A side is named as it is written, or by what stands before a colon and a space.
    """
    names: dict[str, str] = {}
    for written in sides:
        name, _, rest = written.rpartition(": ")
        name = name or rest
        copies = sum(other == rest for other in names.values())
        names[f"{name} #{copies + 1}" if name in names else name] = rest
    return names


def _line(cell: Cell, played: Round) -> str:
    figures = "  ".join(f"{name} {value:.4g}" for name, value in played.metrics.items())
    where = f"{cell.label}  start {played.start + 1} pair {played.pair + 1}"
    return f"  {where}  {played.side:<28} {figures}"


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text)[:100]
