"""A long prompt that enters running streams: how long they stand still, how long it waits."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Sequence

from tests.benchmarks.peers.exchange import Answer, Unusable
from tests.benchmarks.peers.sides import Shape
from tests.benchmarks.peers.target import Target
from tests.benchmarks.peers.workload import OURS, PEER, Cell, Metric, Played, Scale, Workload
from tests.support.random_gguf import prompt_tokens

STREAMS, PROMPT, ANSWER = 4, 64, 384
NEWCOMER, NEWCOMER_ANSWER = 2000, 16
EVENTS_BEFORE = 32
"""Each stream has shown so many events when the newcomer is sent."""


class _Running:
    """Set once every stream has shown its first events."""

    def __init__(self, streams: int) -> None:
        self.all = asyncio.Event()
        self._left = streams

    def listener(self) -> _Listener:
        return _Listener(self)

    def one_runs(self) -> None:
        self._left -= 1
        if self._left == 0:
            self.all.set()


class _Listener:
    """Counts one stream's events as its bytes come."""

    def __init__(self, running: _Running) -> None:
        self._running, self._events = running, 0

    def __call__(self, data: bytes) -> None:
        before = self._events
        self._events += data.count(b"data:")
        if before < EVENTS_BEFORE <= self._events:
            self._running.one_runs()


async def _play(target: Target, dice: random.Random) -> Played:
    running = _Running(STREAMS)
    streams = [target.complete(prompt_tokens(dice, PROMPT), ANSWER) for _ in range(STREAMS)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(stream.send(running.listener())) for stream in streams]
        await _all_run(running, tasks)
        arrived_at = time.perf_counter()
        long_prompt = prompt_tokens(dice, NEWCOMER)
        newcomer = await target.complete(long_prompt, NEWCOMER_ANSWER).send()
    answers = [task.result() for task in tasks]
    first_at = newcomer.sent_at + newcomer.first_text_s
    if newcomer.tokens and any(a.tokens and a.ended_at < first_at for a in answers):
        raise Unusable("a stream ended before the newcomer's first token: no gap to measure")
    return Played(
        metrics={
            "largest_gap": 1000 * max(max(a.gaps(arrived_at, first_at)) for a in answers),
            "newcomer_ttft": 1000 * newcomer.first_text_s,
            "gap_before": 1000
            * statistics.median(gap for a in answers for gap in a.gaps(until=arrived_at)),
        }
    )


async def _all_run(running: _Running, tasks: Sequence[asyncio.Task[Answer]]) -> None:
    """Until every stream runs, or one is over: then what it says is why."""
    waiting = asyncio.ensure_future(running.all.wait())
    try:
        await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    if not running.all.is_set():
        raise Unusable("a stream ended before all of them ran")


def _cells(scale: Scale) -> list[Cell]:
    shape = Shape(model=scale.model_path(), slots=STREAMS + 1, context=2560, threads=scale.threads)
    return [Cell(label=f"into {STREAMS} streams", shape=shape, play=_play)]


WORKLOAD = Workload(
    name="long_prompt",
    about=f"a prompt of {NEWCOMER} tokens enters {STREAMS} running streams",
    metrics=(
        Metric(name="largest_gap", unit="ms", better="lower"),
        Metric(name="newcomer_ttft", unit="ms", better="lower"),
        Metric(name="gap_before", unit="ms", better="lower"),
    ),
    cells=_cells,
    sides=(OURS, f"{PEER} -b 128", PEER),
)
