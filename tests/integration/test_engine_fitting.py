"""What the arithmetic says a model takes, against what llama.cpp and the machine say."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from agent.demo_model import DEMO_MODEL_PATH
from agent.engine.channel import AgentGone, Channel
from agent.engine.engine import Engine
from agent.engine.frames import EngineOptions, Shutdown, encode
from agent.engine.llama.devices import gpus, most_sequences
from agent.engine.llama.log import start_backend
from agent.engine.llama.model import Model
from agent.engine.loading import host_memory
from agent.engine.loading import load as loading
from agent.engine.loading.fitting import Machine, Memory, fit
from agent.engine.loading.gguf_file import read_gguf
from agent.engine.loading.load import fitted
from agent.engine.loading.memory_needs import GIB, MIB, CacheType, Wanted, needs
from agent.engine.loading.model_shape import shape_of
from agent.engine.worker import ShutDown, listen
from agent.errors import ModelRejected
from tests.support import shaped_gguf
from tests.support.engine_calls import Recorder, running_engine
from tests.support.rehearsal import Allocation, Setting, rehearsed
from tests.support.tiny_gguf import write_tiny_gguf

PROJECT = Path(__file__).resolve().parents[2]
SETTINGS = [
    Setting(context_tokens=4096, slots=1),
    Setting(context_tokens=16384, slots=4),
    Setting(context_tokens=16384, slots=4, micro_batch_tokens=128),
    Setting(context_tokens=16384, slots=4, flash_attention=False),
    Setting(context_tokens=65536, slots=8, flash_attention=False),
    Setting(context_tokens=32768, slots=4, unified=True),
    Setting(context_tokens=16384, slots=4, whole_windows=False),
    Setting(context_tokens=1000, slots=3, cache_type="q8_0"),
    Setting(context_tokens=8192, slots=2, cache_type="f32"),
]
SMALL_SLACK_MIB = 12
"""What a formula may be off by for buffers of a few MiB."""


@pytest.mark.parametrize(
    "write",
    [
        shaped_gguf.llama,
        lambda path: shaped_gguf.llama(path, width=8192, layers=80, heads=64, hidden=28672),
        lambda path: shaped_gguf.llama(path, width=2048, layers=16, hidden=8192),
        shaped_gguf.gemma3,
        shaped_gguf.mamba,
        shaped_gguf.deepseek2_lite,
        shaped_gguf.granite_hybrid,
        write_tiny_gguf,
        lambda _path: DEMO_MODEL_PATH,
    ],
    ids=["8b", "70b", "1b", "gemma3", "mamba", "deepseek2", "granite hybrid", "tiny", "demo"],
)
def test_the_arithmetic_is_what_llama_cpp_would_allocate(
    tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    """Caches and weights to the byte (the log has two places); buffers are never underestimated,
    and by no more than a third and 12 MiB too large."""
    path = write(tmp_path / "model.gguf")
    shape = shape_of(read_gguf(path))
    [allocations] = rehearsed([path], SETTINGS)
    for setting, real in zip(SETTINGS, allocations, strict=True):
        host, gpu = needs(shape, _plan(setting))
        assert gpu.total == 0
        assert host.weights / MIB == pytest.approx(real.weights, abs=0.01), setting
        assert host.cache / MIB == pytest.approx(real.cache, abs=0.02), setting
        _assert_bounds(host.computing / MIB, real, setting)


def _assert_bounds(estimate: float, real: Allocation, setting: Setting) -> None:
    assert real.computing <= estimate <= real.computing * 4 / 3 + SMALL_SLACK_MIB, setting


def _plan(setting: Setting) -> Wanted:
    kinds: dict[str, CacheType] = {"f16": "f16", "f32": "f32", "q8_0": "q8_0"}
    return Wanted(
        slots=setting.slots,
        context_tokens=setting.context_tokens,
        batch_tokens=setting.micro_batch_tokens,
        micro_batch_tokens=setting.micro_batch_tokens,
        gpu_layers=0,
        cache_type=kinds[setting.cache_type],
        flash_attention=setting.flash_attention,
        unified=setting.unified,
        whole_windows=setting.whole_windows,
    )


@pytest.mark.parametrize("context_tokens", [4096, 262144])
async def test_an_engine_takes_no_more_than_was_said_and_not_much_less(context_tokens: int) -> None:
    """Within 160 MiB of it: the room for the process, and buffers that are never touched."""
    path = str(DEMO_MODEL_PATH)
    options = EngineOptions(model_path=path, slots=4, threads=1, context_tokens=context_tokens)
    shape = shape_of(read_gguf(Path(path)))
    plan = Wanted(
        slots=4,
        context_tokens=context_tokens,
        batch_tokens=512,
        micro_batch_tokens=512,
        gpu_layers=0,
    )
    said = needs(shape, plan)[0].total
    async with running_engine(options) as (engine, recorder):
        await recorder.until(lambda: bool(recorder.ready))
        assert engine.pid is not None
        resident = psutil.Process(engine.pid).memory_info().rss
    assert said - 160 * MIB <= resident <= said


def test_a_large_model_gets_the_context_that_fits(tmp_path: Path) -> None:
    shape = shape_of(read_gguf(shaped_gguf.llama(tmp_path / "8b.gguf")))
    machine = Machine(host=Memory(free=16 * GIB, total=16 * GIB))
    chosen = fit(shape, Wanted(), machine)
    [[real]] = rehearsed(
        [tmp_path / "8b.gguf"],
        [Setting(context_tokens=chosen.context_tokens, slots=chosen.slots)],
    )
    assert (real.weights + real.cache + real.computing) * MIB < 16 * GIB
    assert real.cache * MIB > 6 * GIB


async def test_a_model_that_cannot_fit_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    """Half a TiB of weights: no machine of ours has it. Nothing is tried again."""
    path = shaped_gguf.llama(tmp_path / "huge.gguf", width=16384, layers=256, hidden=65536)
    engine, recorder = Engine(EngineOptions(model_path=str(path), threads=1)), Recorder()
    with pytest.raises(ModelRejected, match=r"needs [\d.]+ GiB of main memory \(weights 524"):
        await engine.run(recorder)
    assert [death.final for death in recorder.deaths] == [True]
    assert recorder.progress == []


async def test_an_explicit_context_that_cannot_fit_is_refused_with_one_that_does() -> None:
    options = EngineOptions(
        model_path=str(DEMO_MODEL_PATH), slots=1, threads=1, context_tokens=2_000_000_000
    )
    with pytest.raises(ModelRejected, match=r"needs .* are free.* Use --context 2048"):
        await Engine(options).run(Recorder())


async def test_a_truncated_file_ends_the_start_with_the_remedy(tmp_path: Path) -> None:
    whole = DEMO_MODEL_PATH.read_bytes()
    path = tmp_path / "half.gguf"
    path.write_bytes(whole[: len(whole) // 2])
    recorder = Recorder()
    with pytest.raises(ModelRejected, match=r"incomplete: it has .* \(50 %\)\. Download it again"):
        await Engine(EngineOptions(model_path=str(path), threads=1)).run(recorder)
    assert len(recorder.deaths) == 1


def test_an_agent_whose_model_is_truncated_ends_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "half.gguf"
    path.write_bytes(DEMO_MODEL_PATH.read_bytes()[:100_000])
    done = subprocess.run(
        [
            *(sys.executable, "-m", "paddler_py", "agent", "--balancer", "127.0.0.1:1"),
            *("--model", str(path), "--name", "one"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=PROJECT,
    )
    assert done.returncode == 3
    assert "Error: " in done.stderr
    assert "Download it again" in done.stderr


async def test_a_load_is_told_of_from_its_start(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf")
    async with running_engine(EngineOptions(model_path=str(path), threads=1)) as (_, recorder):
        await recorder.until(lambda: bool(recorder.ready))
    assert recorder.progress[0] == 0.0
    assert all(earlier <= later <= 1.0 for earlier, later in pairwise(recorder.progress))


async def test_without_the_check_the_model_is_loaded_as_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(write_tiny_gguf(tmp_path / "tiny.gguf"))
    monkeypatch.setattr(loading, "host_memory", lambda: host_memory.MemoryFacts(free=1, total=1))
    with pytest.raises(ModelRejected, match="does not fit"):
        _fitted(EngineOptions(model_path=path))
    chosen = _fitted(EngineOptions(model_path=path, fit="off", slots=0))
    assert (chosen.slots, chosen.context_tokens) == (4, 0)


def _fitted(options: EngineOptions) -> EngineOptions:
    places, shared, _ = gpus()
    return fitted(
        options,
        gpus=places,
        gpus_share_host=shared,
        most_slots=most_sequences(),
        idle_sequences=0,
        reduces_rows=False,
    )


def test_more_slots_than_llama_cpp_serves_are_refused_with_the_number(tmp_path: Path) -> None:
    path = str(write_tiny_gguf(tmp_path / "tiny.gguf"))
    with pytest.raises(ModelRejected, match=f"Use --slots {most_sequences()} or fewer"):
        _fitted(EngineOptions(model_path=path, slots=most_sequences() + 1))


@pytest.mark.parametrize("end", ["asked to", "alone"])
def test_a_load_that_nobody_waits_for_is_cancelled(end: str) -> None:
    """The callback says so at the next tensor, and what ended it comes out behind llama.cpp."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = Channel(ours, os.getppid())
        if end == "asked to":
            theirs.sendall(encode(Shutdown()))
        else:
            theirs.close()
        watch = loading.LoadWatch(channel, lambda: listen(channel, []))
        options = EngineOptions(model_path=str(DEMO_MODEL_PATH), threads=1)
        with pytest.raises(ShutDown if end == "asked to" else AgentGone):
            Model(options, start_backend(), watch)
