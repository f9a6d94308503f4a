"""The engine as a process of its own: served, killed, restarted, ended."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from agent.engine import engine as engine_module
from agent.engine import engine_link
from agent.engine.channel import Channel
from agent.engine.engine import Engine
from agent.engine.frames import (
    CancelCall,
    ContinueCall,
    EngineOptions,
    PauseCall,
    Ready,
    Sampling,
    Shutdown,
    Start,
    Step,
    Submit,
    encode,
    event_decoder,
)
from agent.engine.worker import EXIT_AGENT_GONE, EXIT_SHUTDOWN
from protocol.refusals import RefusalCode
from tests.support.engine_calls import WAIT_LIMIT_S, Calls, Recorder, polled, running_engine
from tests.support.tiny_gguf import CONTEXT, write_tiny_gguf

PROJECT = Path(__file__).resolve().parents[2]
GREEDY = Sampling(temperature=0.0)
ENDLESS = Sampling(ignore_eos=True)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf"))


@pytest.fixture
def never_loads(tmp_path: Path) -> str:
    """A model file whose opening waits for ever."""
    path = tmp_path / "slow.gguf"
    os.mkfifo(path)
    return str(path)


def options(model_path: str, slots: int = 4) -> EngineOptions:
    return EngineOptions(
        model_path=model_path, slots=slots, threads=1, cache_type="f32", flash_attention="off"
    )


async def ready(recorder: Recorder, times: int = 1) -> None:
    await recorder.until(lambda: len(recorder.ready) >= times)


async def gone(pid: int) -> None:
    """Wait until a process has ended; one that nobody reaps has ended too."""
    await polled(lambda: not is_running(pid))


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def pid_of(engine: Engine) -> int:
    assert engine.pid is not None
    return engine.pid


async def test_concurrent_calls_on_all_slots_get_what_they_get_alone(model_path: str) -> None:
    async with running_engine(options(model_path)) as (engine, recorder):
        await ready(recorder)
        for number in range(8):
            if number >= 4:
                await recorder.over(number - 1)
            sampling = Sampling(seed=number % 4)
            prompt = f"question {number % 4} " * 5
            engine.send(Submit(call=number, prompt=prompt, sampling=sampling, max_tokens=30))
        await recorder.over(*range(8))
        for number in range(4):
            assert recorder[number].token_ids == recorder[number + 4].token_ids
            assert len(recorder[number].texts) > 0
        assert engine.facts is not None
        assert engine.facts.context_tokens == CONTEXT


async def test_cancelling_frees_the_slot_for_the_next_call(model_path: str) -> None:
    async with running_engine(options(model_path, slots=1)) as (engine, recorder):
        await ready(recorder)
        engine.send(Submit(call=1, prompt="long", sampling=ENDLESS))
        await recorder.until(lambda: bool(recorder[1].token_ids))
        engine.send(Submit(call=2, prompt="refused"))
        await recorder.over(2)
        engine.send(CancelCall(call=1))
        engine.send(Submit(call=3, prompt="next", sampling=GREEDY, max_tokens=3))
        await recorder.over(1, 3)
        refused, ended = recorder[2].refused, recorder[1].ended
        assert refused is not None
        assert ended is not None
        assert refused.code == RefusalCode.NO_FREE_SLOT
        assert ended.finish_reason == "cancelled"
        assert len(recorder[3].token_ids) == 3


async def test_a_paused_call_waits_until_it_is_continued(model_path: str) -> None:
    async with running_engine(options(model_path, slots=1)) as (engine, recorder):
        await ready(recorder)
        engine.send(Submit(call=1, prompt="abc", sampling=ENDLESS, max_tokens=300))
        engine.send(PauseCall(call=1))
        await recorder.until(lambda: bool(recorder.steps) and not recorder.steps[-1].has_work)
        assert recorder[1].ended is None
        engine.send(ContinueCall(call=1))
        await recorder.over(1)
        assert len(recorder[1].token_ids) == 300


async def test_a_context_too_long_is_refused_with_the_numbers(model_path: str) -> None:
    async with running_engine(options(model_path)) as (engine, recorder):
        await ready(recorder)
        engine.send(Submit(call=1, prompt="x" * 600))
        await recorder.over(1)
        refused = recorder[1].refused
        assert refused is not None
        assert refused.code == RefusalCode.CONTEXT_TOO_LONG
        words_of_anthropic = f"prompt is too long: 600 tokens > {CONTEXT - 1} maximum"
        words_of_openai = f"This model's maximum context length is {CONTEXT} tokens"
        assert words_of_anthropic in refused.message
        assert words_of_openai in refused.message


async def test_a_killed_engine_is_reported_restarted_and_serves_again(model_path: str) -> None:
    async with running_engine(options(model_path)) as (engine, recorder):
        await ready(recorder)
        engine.send(Submit(call=1, prompt="abc", sampling=ENDLESS))
        await recorder.until(lambda: bool(recorder[1].token_ids))
        first = pid_of(engine)
        os.kill(first, signal.SIGKILL)
        await recorder.until(lambda: bool(recorder.deaths))
        (death,) = recorder.deaths
        assert (death.signal, death.phase) == ("SIGKILL", "serving")
        assert death.step > 0
        assert engine.facts is None
        engine.send(Submit(call=2, prompt="dropped"))
        recorder.steps.clear()
        await ready(recorder, 2)
        assert pid_of(engine) != first
        engine.send(Submit(call=3, prompt="abc", sampling=GREEDY, max_tokens=3))
        await recorder.over(3)
        assert len(recorder[3].token_ids) == 3
        assert recorder[2].accepted is None


@pytest.mark.parametrize("name", ["SIGABRT", "SIGSEGV"])
async def test_a_death_while_loading_is_told_apart(never_loads: str, name: str) -> None:
    async with running_engine(options(never_loads)) as (engine, recorder):
        await polled(lambda: engine.pid is not None)
        os.kill(pid_of(engine), signal.Signals[name])
        await recorder.until(lambda: bool(recorder.deaths))
        assert (recorder.deaths[0].signal, recorder.deaths[0].phase) == (name, "loading")


async def test_a_bad_file_is_reported_in_words_and_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    async with running_engine(options(str(path))) as (_, recorder):
        await recorder.until(lambda: bool(recorder.deaths))
        death = recorder.deaths[0]
        assert (death.signal, death.exit_code, death.phase) == ("", 3, "loading")
        assert death.message == f"Cannot read the model file {path}: No such file or directory."
        write_tiny_gguf(tmp_path / "written.gguf").rename(path)
        await ready(recorder)


async def test_an_engine_that_cannot_be_spawned_is_a_death_like_others(
    model_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", "/no/such/python")
        async with running_engine(options(model_path)) as (_, recorder):
            await recorder.until(lambda: bool(recorder.deaths))
            assert "could not be started" in recorder.deaths[0].message
            patched.undo()
            await ready(recorder)


def stand_in(folder: Path, body: str) -> str:
    """A program to be run in the engine's place; `link` is its socket to the agent."""
    path = folder / "stand-in"
    path.write_text(
        f"#!{sys.executable}\n"
        "import os, signal, socket, sys, time\n"
        f"sys.path.insert(0, {str(PROJECT)!r})\n"
        "from agent.engine.frames import Loaded, encode\n"
        "link = socket.socket(fileno=int(sys.argv[-2]))\n" + body
    )
    path.chmod(0o755)
    return str(path)


async def test_a_death_in_the_first_decode_says_which_build_to_make(
    model_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dies = "link.sendall(encode(Loaded())); os.kill(os.getpid(), signal.SIGILL)\n"
    monkeypatch.setattr(sys, "executable", stand_in(tmp_path, dies))
    async with running_engine(options(model_path)) as (_, recorder):
        await recorder.until(lambda: bool(recorder.deaths))
        death = recorder.deaths[0]
        assert (death.signal, death.phase) == ("SIGILL", "starting_decode")
        assert "make clean-llama" in death.message
        assert recorder.ready == []


@pytest.mark.parametrize("nonsense", [b"\xff\xff\xff\xff", b"\x01\x00\x00\x00\xc1"])
async def test_an_engine_that_sends_nonsense_is_given_up(
    model_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nonsense: bytes
) -> None:
    talks = f"link.sendall({nonsense!r}); time.sleep(3600)\n"
    monkeypatch.setattr(sys, "executable", stand_in(tmp_path, talks))
    async with running_engine(options(model_path)) as (_, recorder):
        await recorder.until(lambda: bool(recorder.deaths))
        assert recorder.deaths[0].signal == "SIGKILL"


async def test_an_engine_that_reads_nothing_is_given_up(
    model_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_link, "MAX_UNSENT_BYTES", 1_000_000)
    monkeypatch.setattr(sys, "executable", stand_in(tmp_path, READY_AND_DEAF))
    async with running_engine(options(model_path)) as (engine, recorder):
        await ready(recorder)
        engine.send(Submit(call=1, prompt="x" * 3_000_000))
        await recorder.until(lambda: bool(recorder.deaths))
        assert recorder.deaths[0].signal == "SIGKILL"


READY_AND_DEAF = """
from agent.engine.frames import EngineFacts, Ready
facts = EngineFacts(
    slots=1, context_tokens=1, kv_cells=1, trained_context_tokens=1, vocabulary=1, size_bytes=1,
    parameters=1, architecture="", name="", description="", chat_template="", bos_token="",
    eos_token="", adds_bos=False, tokenizer_digest="", llama_cpp_version="",
)
link.sendall(encode(Ready(facts=facts)))
time.sleep(3600)
"""


async def test_an_ended_engine_leaves_no_process(model_path: str) -> None:
    async with running_engine(options(model_path)) as (engine, recorder):
        await ready(recorder)
        engine.send(Submit(call=1, prompt="abc", sampling=ENDLESS))
        pid = pid_of(engine)
    assert not psutil.pid_exists(pid)
    assert recorder.deaths == []


async def test_a_sigterm_to_every_process_of_an_agent_leaves_the_engine_serving(
    model_path: str,
) -> None:
    async with running_engine(options(model_path)) as (engine, recorder):
        await ready(recorder)
        os.kill(pid_of(engine), signal.SIGTERM)
        engine.send(Submit(call=1, prompt="abc", max_tokens=4, sampling=ENDLESS))
        await recorder.until(lambda: recorder[1].ended is not None)
    assert recorder.deaths == []


async def test_an_engine_that_hangs_is_ended_within_a_bound(
    never_loads: str, model_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "SHUTDOWN_GRACE_S", 0.05)
    async with running_engine(options(never_loads)) as (engine, _):
        await polled(lambda: engine.pid is not None)
        loading = pid_of(engine)
    async with running_engine(options(model_path)) as (engine, recorder):
        await ready(recorder)
        stopped = pid_of(engine)
        os.kill(stopped, signal.SIGSTOP)
    assert not psutil.pid_exists(loading)
    assert not psutil.pid_exists(stopped)


@contextmanager
def owner(model_path: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process with an engine, and the engine's pid; both are gone at the end."""
    command = [sys.executable, "-m", "tests.support.engine_owner", model_path]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        try:
            yield process, pid
        finally:
            process.kill()
            if is_running(pid):
                os.kill(pid, signal.SIGKILL)


async def test_a_killed_agent_leaves_no_engine_while_it_loads(never_loads: str) -> None:
    with owner(never_loads) as (process, pid):
        process.kill()
        await gone(pid)


@pytest.mark.parametrize("busy", [True, False], ids=["serving", "in a decode that never returns"])
async def test_a_killed_agent_leaves_no_engine(model_path: str, busy: bool) -> None:
    with owner(model_path) as (process, pid):
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "serving\n"
        if not busy:
            os.kill(pid, signal.SIGSTOP)
        process.kill()
        await gone(pid)


class Worker:
    """The engine process spoken to by hand."""

    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "agent.engine.worker"),
                *(str(theirs.fileno()), str(os.getpid())),
            ],
            cwd=PROJECT,
            pass_fds=[theirs.fileno()],
            stderr=subprocess.PIPE,
            text=True,
        )
        theirs.close()
        self.channel = Channel(self.ours, os.getppid())
        self.heard = Calls()
        self.ready: Ready | None = None

    def until_ready(self) -> None:
        while self.ready is None:
            self.listen()

    def listen(self) -> None:
        self.channel.wait(int(WAIT_LIMIT_S * 1000))
        for body in self.channel.receive():
            match event_decoder.decode(body):
                case Step() as step:
                    self.heard.take(step)
                case Ready() as ready:
                    self.ready = ready

    def end(self) -> str:
        """Its error output, when it has exited."""
        return self.process.communicate(timeout=WAIT_LIMIT_S)[1]


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.ours.close()
    worker.process.kill()
    worker.process.communicate()


def test_what_is_no_command_is_dropped_and_the_engine_serves_on(
    worker: Worker, model_path: str
) -> None:
    poison = [b"\xc1", b"", b"\x92\xa7unknown\x01", b"\x91\xa6submit"]
    frames = b"".join(len(body).to_bytes(4, "little") + body for body in poison)
    start = encode(Start(options=options(model_path)))
    early = encode(Submit(call=1, prompt="before the start"))
    worker.ours.sendall(frames + early + start + start + frames)
    worker.until_ready()
    worker.ours.sendall(frames + encode(Submit(call=2, prompt="abc", max_tokens=3)))
    while not worker.heard.are_over([2]):
        worker.listen()
    worker.ours.sendall(encode(Shutdown()))
    errors = worker.end()
    assert worker.process.returncode == EXIT_SHUTDOWN
    assert errors.count("is dropped") == 3 * len(poison) + 2
    assert worker.heard[1].accepted is None


def test_an_impossible_frame_ends_the_engine(worker: Worker) -> None:
    worker.ours.sendall(b"\xff\xff\xff\xff")
    worker.end()
    assert worker.process.returncode == EXIT_AGENT_GONE


def test_a_closed_socket_ends_the_engine(worker: Worker, model_path: str) -> None:
    worker.ours.sendall(encode(Start(options=options(model_path))))
    worker.until_ready()
    worker.ours.shutdown(socket.SHUT_RDWR)
    worker.end()
    assert worker.process.returncode == EXIT_AGENT_GONE


def test_an_agent_that_does_not_read_never_stops_the_engine(
    worker: Worker, model_path: str
) -> None:
    """The socket's own buffer is full long before this; the steps are all there in the end."""
    worker.ours.sendall(encode(Start(options=options(model_path))))
    worker.until_ready()
    chatty = Sampling(ignore_eos=True, temperature=0.0, top_logprobs=200)
    for call in range(4):
        worker.ours.sendall(encode(Submit(call=call, prompt="abc", sampling=chatty)))
    silent_until_idle(worker.process.pid)
    while not worker.heard.are_over(range(4)):
        worker.listen()
    assert all(len(worker.heard[call].token_ids) == CONTEXT - 3 for call in range(4))


def silent_until_idle(pid: int) -> None:
    """Read nothing until the process has used CPU time and then sleeps."""
    process = psutil.Process(pid)
    before = process.cpu_times().user
    while True:
        used = process.cpu_times().user
        if used > before + 0.2 and process.status() == psutil.STATUS_SLEEPING:
            return
