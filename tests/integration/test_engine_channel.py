"""The engine's end of the socket pair."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from agent.engine import channel as channel_module
from agent.engine.channel import AgentGone, Channel
from agent.engine.frames import FrameBuffer, LoadFailed, encode, event_decoder

BIG = LoadFailed(message="x" * 100_000)


@pytest.fixture
def pair() -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Channel(ours, os.getppid()), theirs


def send_often(channel: Channel) -> None:
    for _ in range(50):
        channel.send(BIG)


def read_all(sock: socket.socket, channel: Channel, frames: int) -> list[object]:
    buffer, bodies = FrameBuffer(), list[bytes]()
    while len(bodies) < frames:
        bodies += buffer.feed(sock.recv(1 << 20))
        channel.flush()
    return [event_decoder.decode(body) for body in bodies]


def test_sending_never_waits_for_the_reader(pair: tuple[Channel, socket.socket]) -> None:
    channel, theirs = pair
    send_often(channel)
    assert read_all(theirs, channel, 50) == [BIG] * 50


def test_an_agent_that_reads_nothing_is_left_past_the_bound(
    pair: tuple[Channel, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "MAX_PENDING_BYTES", 1_000_000)
    channel, _ = pair
    with pytest.raises(AgentGone, match="unread"):
        send_often(channel)


def test_last_words_are_given_up_after_their_limit(pair: tuple[Channel, socket.socket]) -> None:
    channel, theirs = pair
    send_often(channel)
    channel.flush_within(0.01)
    assert read_all(theirs, channel, 50) == [BIG] * 50
    channel.flush_within(60.0)


def test_nothing_to_read_is_no_frame(pair: tuple[Channel, socket.socket]) -> None:
    channel, theirs = pair
    assert channel.receive() == []
    channel.wait(1)
    theirs.sendall(encode(BIG))
    channel.wait(10_000)
    assert len(channel.receive()) == 1


def test_a_closed_socket_is_an_agent_gone(pair: tuple[Channel, socket.socket]) -> None:
    channel, theirs = pair
    theirs.close()
    with pytest.raises(AgentGone):
        channel.receive()
    with pytest.raises(AgentGone):
        channel.send(BIG)


def test_another_parent_is_an_agent_gone() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(AgentGone, match="ended"):
        Channel(ours, os.getpid()).receive()
