"""An engine process that hangs: nothing dies, nothing is said, and it must not stay so."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from agent.demo_model import DEMO_MODEL_PATH
from agent.engine import watchdog
from agent.engine.engine import STOOD_STILL
from agent.engine.frames import EngineOptions, Sampling, Submit
from agent.engine.query_frames import TokenizeCall
from tests.support.engine_calls import polled, running_engine
from tests.support.tiny_gguf import write_tiny_gguf


async def test_an_engine_that_hangs_over_its_work_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watchdog, "LEAST_PATIENCE_S", 1.0)
    options = EngineOptions(
        model_path=str(DEMO_MODEL_PATH), slots=2, threads=1, context_tokens=1024, fit="off"
    )
    async with running_engine(options) as (engine, recorder):
        await polled(lambda: engine.facts is not None)
        before = engine.pid
        assert before is not None
        sampling = Sampling(temperature=0.0, ignore_eos=True)
        engine.send(Submit(call=1, prompt="Count from 1 to 120.", sampling=sampling))
        await polled(lambda: bool(recorder[1].token_ids))
        os.kill(before, signal.SIGSTOP)
        await polled(lambda: bool(recorder.deaths))
        assert recorder.deaths[0].message == STOOD_STILL
        assert recorder.deaths[0].signal == "SIGKILL"
        await polled(lambda: engine.facts is not None and engine.pid != before)
        engine.send(Submit(call=2, prompt="hello", sampling=sampling, max_tokens=3))
        await recorder.over(2)
        assert len(recorder[2].token_ids) == 3


async def test_an_engine_that_hangs_before_the_tokens_of_a_long_prompt_are_there_is_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(watchdog, "LEAST_PATIENCE_S", 1.0)
    path = str(write_tiny_gguf(tmp_path / "tiny.gguf"))
    options = EngineOptions(model_path=path, slots=1, threads=1, context_tokens=4096, fit="off")
    async with running_engine(options) as (engine, recorder):
        await polled(lambda: engine.facts is not None)
        before = engine.pid
        assert before is not None
        # the thread for long texts is busy with this one first
        engine.send(TokenizeCall(call=-1000, text="hello world, " * 80_000))
        sampling = Sampling(temperature=0.0, ignore_eos=True)
        engine.send(Submit(call=1, prompt="hello world, " * 400, sampling=sampling))
        await recorder.until(lambda: bool(recorder.steps))
        os.kill(before, signal.SIGSTOP)
        await polled(lambda: bool(recorder.deaths))
        assert recorder.deaths[0].message == STOOD_STILL


async def test_an_engine_that_has_answered_everything_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watchdog, "LEAST_PATIENCE_S", 0.5)
    options = EngineOptions(
        model_path=str(DEMO_MODEL_PATH), slots=1, threads=1, context_tokens=512, fit="off"
    )
    async with running_engine(options) as (engine, recorder):
        await polled(lambda: engine.facts is not None)
        before = engine.pid
        sampling = Sampling(temperature=0.0, ignore_eos=True)
        for call in (1, 2):
            engine.send(Submit(call=call, prompt="hello", sampling=sampling, max_tokens=3))
            await recorder.over(call)
        assert (engine.pid, recorder.deaths) == (before, [])
