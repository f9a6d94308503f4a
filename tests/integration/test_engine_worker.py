"""The engine process's loop, run in this process over a real socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from agent.engine.channel import AgentGone, Channel
from agent.engine.frames import (
    CancelCall,
    Command,
    ContinueCall,
    EngineOptions,
    FrameBuffer,
    Loaded,
    LoadProgress,
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
from agent.engine.worker import ShutDown, run
from agent.errors import ModelUnusable
from tests.support.engine_calls import Calls
from tests.support.tiny_gguf import write_tiny_gguf


@pytest.fixture
def pair() -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Channel(ours, os.getppid()), theirs


@pytest.fixture
def start(tmp_path: Path) -> Start:
    path = write_tiny_gguf(tmp_path / "tiny.gguf")
    return Start(options=EngineOptions(model_path=str(path), slots=2, threads=1))


def send(sock: socket.socket, *commands: Command) -> None:
    sock.sendall(b"".join(map(encode, commands)))


def heard(sock: socket.socket) -> list[object]:
    sock.setblocking(False)
    return [event_decoder.decode(body) for body in FrameBuffer().feed(sock.recv(1 << 20))]


def test_it_says_loaded_ready_and_what_its_calls_do(
    pair: tuple[Channel, socket.socket], start: Start
) -> None:
    channel, theirs = pair
    endless = Sampling(ignore_eos=True)
    send(
        theirs,
        start,
        Submit(call=1, prompt="abc", sampling=endless),
        PauseCall(call=1),
        Submit(call=2, prompt="abc", sampling=endless),
        ContinueCall(call=1),
        CancelCall(call=2),
        start,
        Shutdown(),
    )
    with pytest.raises(ShutDown):
        run(channel)
    progress, loaded, ready = heard(theirs)
    assert isinstance(progress, LoadProgress)
    assert isinstance(loaded, Loaded)
    assert isinstance(ready, Ready)


def test_a_closed_socket_ends_the_loop_after_its_calls_were_told(
    pair: tuple[Channel, socket.socket], start: Start
) -> None:
    channel, theirs = pair
    send(theirs, start, Submit(call=1, prompt="abc", max_tokens=3))
    events: list[object] = []
    closer = Thread(target=close_when_ready, args=(theirs, events))
    closer.start()
    with pytest.raises(AgentGone):
        run(channel)
    closer.join()
    calls = Calls()
    for event in (*events, *heard(theirs)):
        if isinstance(event, Step):
            calls.take(event)
    assert calls[1].accepted is not None


def close_when_ready(sock: socket.socket, events: list[object]) -> None:
    """Read as far as Ready, then close our side of the socket."""
    frames = FrameBuffer()
    while not any(isinstance(event, Ready) for event in events):
        events += map(event_decoder.decode, frames.feed(sock.recv(1 << 20)))
    sock.shutdown(socket.SHUT_WR)


def test_an_agent_that_leaves_during_the_load_ends_it(
    pair: tuple[Channel, socket.socket], start: Start
) -> None:
    channel, theirs = pair
    send(theirs, start)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(AgentGone):
        run(channel)
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(1)


@pytest.mark.parametrize("early", [CancelCall(call=1), Submit(call=1, prompt="x")])
def test_commands_before_the_start_are_dropped_but_not_the_end(
    pair: tuple[Channel, socket.socket], early: Command
) -> None:
    channel, theirs = pair
    send(theirs, early, Shutdown())
    with pytest.raises(ShutDown):
        run(channel)


def test_an_unusable_model_is_said_to_be_so(pair: tuple[Channel, socket.socket]) -> None:
    channel, theirs = pair
    send(theirs, Start(options=EngineOptions(model_path="/no/such.gguf")))
    with pytest.raises(ModelUnusable, match="No such file"):
        run(channel)


def test_nonsense_ends_the_loop(pair: tuple[Channel, socket.socket]) -> None:
    channel, theirs = pair
    theirs.sendall(b"\xff\xff\xff\xff")
    with pytest.raises(AgentGone, match="no frame"):
        run(channel)
