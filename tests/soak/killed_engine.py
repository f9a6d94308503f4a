"""Random load on a real engine process that is killed again and again: nothing is lost or leaked.

Every call that was submitted ends, is refused, or is told dead with its engine; a new engine serves
within its backoff; known answers are exact, one of each engine that is killed at least; the memory
of the engine that runs longest does not grow.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass, field
from random import Random

import psutil

from agent.engine.engine import Engine
from agent.engine.frames import CancelCall, Sampling, Submit
from tests.soak.churn import GREEDY, SLOTS, SYSTEMS, chat, goes_on, options
from tests.support.engine_calls import Recorder, polled, running_engine
from tests.support.sure_prompts import sure_prompts


@dataclass
class Killed:
    """What happened."""

    kills: int = 0
    submitted: int = 0
    ended: int = 0
    lost: int = 0
    exact: int = 0
    rss_mib: list[tuple[float, float]] = field(default_factory=list)

    @property
    def is_enough(self) -> bool:
        """Whether it shows something."""
        return self.kills > 1 and self.exact > 0


class Load:
    """Calls on one engine, by number, and what became of them."""

    def __init__(self, engine: Engine, recorder: Recorder, dice: Random) -> None:
        self._engine, self._recorder, self._dice = engine, recorder, dice
        self._known = sure_prompts()
        self._running: dict[int, str] = {}
        self._next = 1
        self._deaths = 0
        self.tally = Killed()

    def add(self) -> None:
        """Fill the slots, and one more; now and then cancel one."""
        while len(self._running) <= SLOTS:
            if self._dice.random() < 0.5:
                prompt, answer = self._dice.choice(self._known)
                self._submit(chat(prompt), answer, GREEDY)
            else:
                system = self._dice.choice(SYSTEMS)
                self._submit(chat("Roll a die 30 times.", system), "", Sampling(seed=self._next))
        if self._dice.random() < 0.1:
            self._engine.send(CancelCall(call=self._dice.choice(list(self._running))))

    def look(self) -> None:
        """Take note of what is over; a death takes all calls of its engine."""
        if len(self._recorder.deaths) > self._deaths:
            self._deaths = len(self._recorder.deaths)
            self.tally.lost += len(self._running)
            self._running.clear()
        for call in [call for call in self._running if self._recorder[call].is_over]:
            answer, heard = self._running.pop(call), self._recorder[call]
            assert heard.failed is None, heard.failed
            self.tally.ended += 1
            if answer and heard.ended and heard.ended.finish_reason == "stop":
                assert heard.text == answer
                self.tally.exact += 1
            self._recorder.forget(call)

    async def finish(self) -> None:
        """Wait for the last ones."""
        await self._recorder.over(*self._running)
        self.look()

    def _submit(self, prompt: str, answer: str, sampling: Sampling) -> None:
        self._engine.send(Submit(call=self._next, prompt=prompt, sampling=sampling, max_tokens=600))
        self._running[self._next] = answer
        self._next += 1
        self.tally.submitted += 1


async def killed(seconds: float, seed: int, *, kill_every_s: float) -> Killed:
    """Load and kill for a while; raises `AssertionError` at the first thing that is wrong."""
    dice = Random(seed)
    async with running_engine(options()) as (engine, recorder):
        load = Load(engine, recorder, dice)
        started = time.monotonic()
        next_kill, exact_before = started + kill_every_s, 0
        while goes_on(time.monotonic() - started, seconds, is_enough=load.tally.is_enough):
            await polled(lambda: engine.facts is not None)
            load.add()
            seen = len(recorder.steps) and recorder.steps[-1].number
            await recorder.until(lambda seen=seen: _has_moved(recorder, engine, seen))  # type: ignore[misc]  # default binds
            load.look()
            now = time.monotonic()
            is_proven = load.tally.exact > exact_before  # however slow the machine is
            if now > next_kill and is_proven and engine.pid is not None:
                os.kill(engine.pid, signal.SIGKILL)
                load.tally.kills += 1
                next_kill, exact_before = now + kill_every_s, load.tally.exact
                await polled(lambda: len(recorder.deaths) == load.tally.kills)
                load.look()
            elif engine.pid is not None:
                rss = psutil.Process(engine.pid).memory_info().rss
                load.tally.rss_mib.append((now - started, rss / 2**20))
        await polled(lambda: engine.facts is not None)
        await load.finish()
    tally = load.tally
    assert tally.submitted == tally.ended + tally.lost
    return tally


def _has_moved(recorder: Recorder, engine: Engine, seen: int) -> bool:
    return engine.facts is None or (bool(recorder.steps) and recorder.steps[-1].number != seen)


def run(seconds: float, seed: int, *, kill_every_s: float) -> Killed:
    """As `killed`, from outside of a loop."""
    return asyncio.run(killed(seconds, seed, kill_every_s=kill_every_s))
