"""The callback that llama.cpp calls while it loads."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from agent.engine.channel import AgentGone, Channel
from agent.engine.frames import FrameBuffer, LoadProgress, event_decoder
from agent.engine.loading.load import PROGRESS_INTERVAL_S, LoadWatch


@pytest.fixture
def pair() -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        yield Channel(ours, os.getppid()), theirs


def fractions(sock: socket.socket) -> list[float]:
    events = [event_decoder.decode(body) for body in FrameBuffer().feed(sock.recv(1 << 20))]
    return [event.fraction for event in events if isinstance(event, LoadProgress)]


def test_progress_is_told_a_few_times_a_second_at_most(
    pair: tuple[Channel, socket.socket],
) -> None:
    channel, theirs = pair
    now = 0.0
    watch = LoadWatch(channel, lambda: None, lambda: now)
    for step in range(100):
        now = step * PROGRESS_INTERVAL_S / 10
        assert watch(step / 100)
    assert fractions(theirs) == [tenth / 10 for tenth in range(10)]


def test_a_fraction_out_of_bounds_is_put_back(pair: tuple[Channel, socket.socket]) -> None:
    channel, theirs = pair
    for odd in (-0.5, 1.5):
        LoadWatch(channel, lambda: None)(odd)
    assert fractions(theirs) == [0.0, 1.0]


def test_what_ends_the_engine_cancels_the_load_and_comes_out_behind_it(
    pair: tuple[Channel, socket.socket],
) -> None:
    channel, _ = pair
    heard = 0

    def listen() -> None:
        nonlocal heard
        heard += 1
        if heard == 2:
            raise AgentGone("gone")

    watch = LoadWatch(channel, listen)
    assert [watch(0.0), watch(0.1), watch(0.2)] == [True, False, False]
    assert heard == 2
    with pytest.raises(AgentGone, match="gone"):
        watch.raise_if_ended()


def test_a_load_that_went_through_raises_nothing(pair: tuple[Channel, socket.socket]) -> None:
    watch = LoadWatch(pair[0], lambda: None)
    assert watch(1.0)
    watch.raise_if_ended()
