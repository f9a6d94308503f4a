"""Resumable streams: readers that come, go, are slow and take over; virtual time, no sockets."""

from __future__ import annotations

import asyncio

from balancer.dispatch.sink import Flow
from balancer.http.openai.stream_form import SSE
from balancer.http.replay import MOST_STREAMS, Replay, Replays
from balancer.settings import LiveSettings, Settings
from tests.support.virtual_time import in_virtual_time, settle


class Generating:
    """The generation's handle: remembers whether it is paused."""

    attempts = 1
    queue_ms = 0.0

    def __init__(self) -> None:
        self.is_paused = False

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False

    def drop(self, reason: str) -> None:
        raise AssertionError(reason)


class Reading:
    """A client's stream that takes `room` bytes before it says that it is slow."""

    def __init__(self, room: int = 10**9) -> None:
        self.got = b""
        self.room = room
        self.flow: Flow | None = None

    def attach(self, flow: Flow) -> None:
        self.flow = flow

    def send(self, events: bytes) -> None:
        self.got += events
        if len(self.got) > self.room and self.flow is not None:
            self.flow.pause()

    def slow_down(self) -> None:
        assert self.flow is not None
        self.flow.pause()

    def catch_up(self, room: int = 10**9) -> None:
        assert self.flow is not None
        self.room += room
        self.flow.resume()

    @property
    def numbers(self) -> list[int]:
        lines = self.got.decode().splitlines()
        return [int(line.rpartition(":")[2]) for line in lines if line.startswith("id: ")]


class Stream:
    """A replay whose generation says what the test says."""

    def __init__(self, **settings: object) -> None:
        self.store = Replays(LiveSettings(Settings(**settings)))  # type: ignore[arg-type]  # of any test
        self.replay = self.store.open("req_1", "me", form=SSE)
        self.generating = Generating()
        self.replay.attach(self.generating)
        self._over = asyncio.Event()
        self.was_cancelled = False
        self.replay.run(self._work(), lambda: None)

    async def _work(self) -> None:
        try:
            await self._over.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise

    def say(self, count: int, size: int = 1) -> None:
        for _ in range(count):
            self.replay.send(b"data: " + b"x" * size + b"\n\n")

    async def end(self) -> None:
        self._over.set()
        await settle()

    def read(self, reader: Reading, start: int = 0) -> asyncio.Task[None]:
        return asyncio.ensure_future(self.replay.read_by(reader, start=start))


def paused(stream: Stream) -> bool:
    return stream.generating.is_paused


def kept(store: Replays) -> Replay | None:
    return store.find("req_1", "me")


@in_virtual_time
async def test_a_reader_that_keeps_up_gets_everything_once_and_then_its_end() -> None:
    stream, reader = Stream(), Reading()
    stream.say(3)
    reading = stream.read(reader)
    await settle()
    stream.say(2)
    await stream.end()
    await reading
    assert reader.numbers == [0, 1, 2, 3, 4]


@in_virtual_time
async def test_a_long_backlog_is_given_only_as_fast_as_it_is_read() -> None:
    stream, reader = Stream(), Reading(room=100_000)
    stream.say(4000, size=200)
    reading = stream.read(reader)
    await settle()
    assert len(reader.got) < 200_000
    assert paused(stream)
    while not reading.done() and len(reader.numbers) < 4000:
        reader.catch_up(100_000)
    assert not paused(stream)
    await stream.end()
    await reading
    assert reader.numbers == list(range(4000))


@in_virtual_time
async def test_a_slow_reader_still_gets_the_rest_after_the_generation_s_end() -> None:
    stream, reader = Stream(), Reading(room=100_000)
    stream.say(4000, size=200)
    reading = stream.read(reader)
    await stream.end()
    assert not reading.done()
    while not reading.done():
        reader.catch_up(100_000)
        await settle()
    assert reader.numbers == list(range(4000))


@in_virtual_time
async def test_who_takes_over_from_a_slow_reader_does_not_find_the_generation_paused() -> None:
    stream, dead, other = Stream(), Reading(room=0), Reading()
    first = stream.read(dead)
    await settle()
    stream.say(1)
    assert paused(stream)
    second = stream.read(other)
    await settle()
    assert first.done()
    assert not paused(stream)
    dead.slow_down()
    assert not paused(stream)
    stream.say(1)
    await stream.end()
    await second
    assert other.numbers == [0, 1]


@in_virtual_time
async def test_unread_it_is_cancelled_after_a_while_and_read_again_it_is_not() -> None:
    stream = Stream(stream_unread_s=30.0)
    for _ in range(3):
        reading = stream.read(Reading())
        await settle()
        reading.cancel()
        await asyncio.sleep(29.0)
    assert (stream.was_cancelled, len(stream.store)) == (False, 1)
    await asyncio.sleep(2.0)
    assert (stream.was_cancelled, len(stream.store)) == (True, 0)
    assert kept(stream.store) is None


@in_virtual_time
async def test_after_its_end_it_is_kept_for_a_minute_however_often_it_is_read() -> None:
    stream = Stream(stream_replay_s=60.0)
    stream.say(2)
    await stream.end()
    for _ in range(3):
        await asyncio.sleep(50.0)
        reader = Reading()
        await stream.read(reader)
        assert reader.numbers == [0, 1]
    await asyncio.sleep(61.0)
    assert kept(stream.store) is None
    assert stream.store.size_bytes == 0


@in_virtual_time
async def test_given_up_for_others_it_still_reaches_the_reader_that_is_there() -> None:
    stream, reader = Stream(stream_replay_bytes=1000), Reading()
    reading = stream.read(reader)
    await settle()
    stream.say(100, size=100)
    assert kept(stream.store) is None
    stream.say(3)
    await stream.end()
    await reading
    assert reader.numbers == list(range(103))
    assert stream.replay._events == []


@in_virtual_time
async def test_no_stream_makes_room_for_another_tenant_s() -> None:
    stream = Stream(stream_replay_bytes=1000)
    stream.say(3)
    theirs = [stream.store.open(f"req_{number}", "greedy", form=SSE) for number in range(5, 9)]
    for one in theirs:
        for _ in range(100):
            one.send(b"data: much\n\n")
    assert kept(stream.store) is stream.replay
    assert [stream.store.find(one.request_id, "greedy") for one in theirs] == [None] * 4
    assert stream.store.size_bytes == stream.replay.size_bytes
    await stream.end()


@in_virtual_time
async def test_who_has_the_most_streams_is_the_first_to_lose_one() -> None:
    store = Replays(LiveSettings(Settings()))
    store.open("req_mine", "me", form=SSE)
    for number in range(MOST_STREAMS + 3):
        store.open(f"req_{number}", "greedy", form=SSE)
    assert len(store) == MOST_STREAMS
    assert store.find("req_mine", "me") is not None


@in_virtual_time
async def test_the_number_of_streams_is_bounded_too() -> None:
    store = Replays(LiveSettings(Settings()))
    for number in range(MOST_STREAMS + 3):
        store.open(f"req_{number}", "me", form=SSE)
    assert len(store) == MOST_STREAMS
    assert store.find("req_0", "me") is None
