"""How soon an engine that died is started again."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from agent.engine import engine as engine_module
from agent.engine.death import EngineDeath, explain
from agent.engine.engine import FIRST_BACKOFF_S, LONGEST_BACKOFF_S, LONGEST_LOAD_BACKOFF_S, Engine
from agent.engine.frames import EngineOptions
from agent.errors import ModelRejected
from tests.support.engine_calls import Recorder
from tests.support.virtual_time import in_virtual_time

LOADING_S = 60.0


class _Mortal:
    """A process that loads for a minute, serves for a while and is killed."""

    serves_s = 0.0

    def __init__(self, _listener: object) -> None:
        self.facts = self.pid = None

    async def run(self, _options: EngineOptions) -> EngineDeath:
        await asyncio.sleep(LOADING_S + self.serves_s)
        return explain(-9, "serving", 1)

    def served_s(self) -> float:
        return self.serves_s


async def _pauses(monkeypatch: pytest.MonkeyPatch, *, serves_s: float) -> list[float]:
    """Seconds from each death to the next start."""
    loop = asyncio.get_running_loop()
    starts: list[float] = []

    class Timed(_Mortal):
        def __init__(self, listener: object) -> None:
            super().__init__(listener)
            self.serves_s = serves_s
            starts.append(loop.time())

    monkeypatch.setattr(engine_module, "_Life", Timed)
    async with asyncio.TaskGroup() as tasks:
        run = tasks.create_task(Engine(EngineOptions(model_path="x")).run(Recorder()))
        await asyncio.sleep(20 * (LOADING_S + serves_s))
        run.cancel()
    return [round(later - start - LOADING_S - serves_s, 3) for start, later in pairwise(starts)]


@in_virtual_time
async def test_a_slow_loader_that_dies_at_once_is_not_restarted_without_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The minute of loading counted as time served, and kept the pause at its shortest."""
    pauses = await _pauses(monkeypatch, serves_s=0.1)
    assert pauses[:4] == [FIRST_BACKOFF_S * 2**n for n in range(4)]
    assert max(pauses) == LONGEST_BACKOFF_S


@in_virtual_time
async def test_a_model_that_never_loads_is_tried_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was loaded again every five seconds, for ever."""
    pauses = await _pauses(monkeypatch, serves_s=0.0)
    assert pauses[:4] == [FIRST_BACKOFF_S * 2**n for n in range(4)]
    assert max(pauses) == LONGEST_LOAD_BACKOFF_S


@in_virtual_time
async def test_an_engine_that_served_for_long_is_restarted_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses = await _pauses(monkeypatch, serves_s=30.0)
    assert set(pauses) == {FIRST_BACKOFF_S}


class _Survived(Exception):
    """The engine was still being restarted after all the lives that a test has."""


async def _deaths(
    monkeypatch: pytest.MonkeyPatch, *lives: tuple[float, EngineDeath]
) -> list[EngineDeath]:
    """What was told of until the engine gave up; each life serves for some seconds."""
    rest = list(lives)

    class Listed(_Mortal):
        async def run(self, _options: EngineOptions) -> EngineDeath:
            if not rest:
                raise _Survived
            self.serves_s, death = rest.pop(0)
            return death

    monkeypatch.setattr(engine_module, "_Life", Listed)
    recorder = Recorder()
    with pytest.raises(ModelRejected, match="damaged"):
        await Engine(EngineOptions(model_path="x")).run(recorder)
    return recorder.deaths


FINAL = explain(3, "loading", 0, load_failure="The file is damaged.", final=True)
PASSING = explain(3, "loading", 0, load_failure="No memory just now.")


@in_virtual_time
async def test_a_load_that_failed_for_good_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A truncated download was loaded again every five seconds, for ever."""
    assert await _deaths(monkeypatch, (0.0, PASSING), (0.0, FINAL)) == [PASSING, FINAL]


@in_virtual_time
async def test_a_model_that_was_served_is_waited_for_whatever_its_file_is_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killed = explain(-9, "serving", 1)
    with pytest.raises(_Survived):
        await _deaths(monkeypatch, (1.0, killed), (0.0, FINAL), (0.0, FINAL))


class _EndsWhenPressed:
    """A process that ends by itself in the moment when it is to be pressed."""

    def __init__(self) -> None:
        self._ended = asyncio.Event()

    async def wait(self) -> int:
        await self._ended.wait()
        return 0

    def terminate(self) -> None:
        self._ended.set()
        raise ProcessLookupError

    kill = terminate


@in_virtual_time
async def test_an_engine_that_ends_while_it_is_pressed_to_is_not_started_again() -> None:
    """The error was an OSError, taken for a failed spawn: the cancellation got lost."""
    process: Any = _EndsWhenPressed()
    await engine_module._Life(Recorder())._end(process)
    assert await process.wait() == 0
