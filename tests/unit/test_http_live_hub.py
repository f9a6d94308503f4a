"""A hub and its readers, with connections that a test fills and empties."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import weakref
from collections.abc import Callable
from typing import Any, cast

import pytest

from balancer.errors import QueueFull
from balancer.http.connection import ClientConnection
from balancer.http.management.live import hub
from balancer.http.management.live.hub import Hub, Timer
from balancer.http.management.live.logs import LogFilter, LogRoom
from balancer.http.management.live.reader import MAX_UNSENT_BYTES, SILENCE_S, Reader
from balancer.observability.log_ring import LogRing
from balancer.observability.tree import Tree
from balancer.settings import MIB
from tests.support.virtual_time import in_virtual_time


class FakeConnection:
    """Keeps what is written; `unsent` is what the test says."""

    def __init__(self) -> None:
        self.unsent = 0
        self.frames: list[bytes] = []
        self.transport = self
        self.watcher: Any = None

    def unsent_bytes(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return False

    def write(self, frame: bytes) -> None:
        self.frames.append(frame)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """What was written since the last time."""
        taken, self.frames = self.frames, []
        return [json.loads(frame[frame.index(b"{") :]) for frame in taken]


class Beat:
    """Ticks when the test says so."""

    def __init__(self) -> None:
        self.tick: Callable[[], None] | None = None

    def start(self, tick: Callable[[], None]) -> None:
        self.tick = tick

    def stop(self) -> None:
        self.tick = None

    def is_going(self) -> bool:
        return self.tick is not None


class Feed:
    """Shows what the test puts there, and counts how often it is looked at."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {"a": 1}
        self.reads = 0

    def read(self) -> Tree:
        self.reads += 1
        return dict(self.tree)

    def beside(self) -> dict[str, Any]:
        return {}

    def news(self) -> dict[str, Any]:
        return {}


class Site:
    """A hub with as many readers as a test opens."""

    def __init__(self) -> None:
        self.feed, self.beat = Feed(), Beat()
        self.hub = Hub(self.feed, self.beat)

    def reader(self) -> tuple[Reader, FakeConnection]:
        connection = FakeConnection()
        reader = Reader(cast(ClientConnection, connection))
        self.hub.join(reader)
        return reader, connection

    def change(self, **values: Any) -> None:
        """Something is other, and the hub looks."""
        self.feed.tree.update(values)
        assert self.beat.tick is not None
        self.beat.tick()


@in_virtual_time
async def test_a_change_is_found_once_and_written_in_the_same_bytes() -> None:
    site = Site()
    (_, one), (_, two) = site.reader(), site.reader()
    assert one.frames == two.frames
    reads = site.feed.reads
    site.change(b=2)
    assert site.feed.reads == reads + 1
    assert one.frames[-1] is two.frames[-1]
    assert one.messages[-1] == {"type": "delta", "seq": 2, "set": {"b": 2}, "gone": []}
    site.change()
    assert one.messages == []


@in_virtual_time
async def test_who_does_not_read_gets_a_snapshot_once_everything_is_read() -> None:
    site = Site()
    (_, quick), (_, slow) = site.reader(), site.reader()
    slow.messages  # noqa: B018 (taken)
    slow.unsent = MAX_UNSENT_BYTES + 1
    site.change(b=2)
    slow.unsent = 1
    site.change(b=3)
    assert slow.messages == []
    slow.unsent = 0
    site.change()
    assert slow.messages == [{"type": "snapshot", "seq": 3, "data": {"a": 1, "b": 3}}]
    site.change(b=4)
    assert slow.messages == [{"type": "delta", "seq": 4, "set": {"b": 4}, "gone": []}]
    assert [message["seq"] for message in quick.messages] == [1, 2, 3, 4]


@in_virtual_time
async def test_the_beat_ends_with_the_last_reader_and_begins_with_the_next() -> None:
    site = Site()
    (one, _), (two, _) = site.reader(), site.reader()
    site.hub.leave(one)
    assert site.beat.is_going()
    site.hub.leave(two)
    assert not site.beat.is_going()
    site.feed.tree["a"] = 7
    _, again = site.reader()
    assert again.messages == [{"type": "snapshot", "seq": 2, "data": {"a": 7}}]


@in_virtual_time
async def test_more_readers_than_may_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "MAX_READERS", 1)
    site = Site()
    site.reader()
    with pytest.raises(QueueFull):
        site.reader()


@in_virtual_time
async def test_a_silent_reader_is_pinged() -> None:
    _, connection = Site().reader()
    connection.messages  # noqa: B018 (taken)
    await asyncio.sleep(SILENCE_S + 1)
    assert connection.messages == [{"type": "ping"}]
    await asyncio.sleep(SILENCE_S)
    assert connection.messages == [{"type": "ping"}]


@in_virtual_time
async def test_a_reader_that_is_told_something_is_not_pinged_and_a_closed_one_is_left_alone() -> (
    None
):
    site = Site()
    reader, connection = site.reader()
    await asyncio.sleep(SILENCE_S - 1)
    site.change(b=1)
    await asyncio.sleep(2)
    assert [message["type"] for message in connection.messages] == ["snapshot", "delta"]
    reader.closed()
    await asyncio.sleep(2 * SILENCE_S)
    assert connection.messages == []


@in_virtual_time
async def test_nothing_is_answered_while_much_lies_unsent() -> None:
    reader, connection = Site().reader()
    assert connection.watcher is reader
    reader.on_writing_paused()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await reader.can_be_written()
    reader.on_writing_resumed()
    await reader.can_be_written()
    reader.on_dropped()
    connection.messages  # noqa: B018 (taken)
    reader.send_value({"type": "late"})
    assert connection.messages == []


@in_virtual_time
async def test_a_timer_ticks_at_its_interval_until_it_is_stopped() -> None:
    ticks: list[float] = []
    loop = asyncio.get_running_loop()
    timer = Timer(0.25)
    timer.start(lambda: ticks.append(loop.time()))
    await asyncio.sleep(1.1)
    timer.stop()
    timer.stop()
    await asyncio.sleep(1)
    assert len(ticks) == 4


@in_virtual_time
async def test_a_beat_that_fails_once_goes_on() -> None:
    ticks: list[float] = []
    loop = asyncio.get_running_loop()

    def tick() -> None:
        ticks.append(loop.time())
        if len(ticks) == 1:
            raise RuntimeError("a defect")

    timer = Timer(0.25)
    timer.start(tick)
    await asyncio.sleep(0.6)
    timer.stop()
    assert len(ticks) == 2


@in_virtual_time
async def test_a_timer_that_is_stopped_by_its_own_beat_stays_so() -> None:
    ticks: list[int] = []
    timer = Timer(0.25)

    def tick() -> None:
        ticks.append(1)
        timer.stop()

    timer.start(tick)
    await asyncio.sleep(2)
    assert ticks == [1]


# --- the log ---


def _line(ring: LogRing, event: str, **facts: Any) -> None:
    ring.keep(None, "info", {"event": event, "level": "info", "logger": "balancer.app", **facts})


class Row(dict[str, int]):
    """One that tells when nobody has it any more."""


@in_virtual_time
async def test_nothing_is_held_for_readers_that_are_gone() -> None:
    site = Site()
    site.feed.tree["row"] = Row(a=1)
    is_held = weakref.ref(site.feed.tree["row"])
    reader, _ = site.reader()
    reader.closed()
    site.hub.leave(reader)
    del site.feed.tree["row"]
    gc.collect()
    assert is_held() is None


@in_virtual_time
async def test_who_does_not_read_lines_is_told_how_many_were_missed() -> None:
    ring = LogRing(length=3)
    room = LogRoom(ring)
    connection = FakeConnection()
    room.join(Reader(cast(ClientConnection, connection)), LogFilter())
    connection.unsent = MAX_UNSENT_BYTES + 1
    _line(ring, "one")
    await asyncio.sleep(0.3)
    for event in ("two", "three", "four", "five"):
        _line(ring, event)
    await asyncio.sleep(0.3)
    assert [message["type"] for message in connection.messages] == ["snapshot"]
    connection.unsent = 0
    _line(ring, "six")
    await asyncio.sleep(0.3)
    missed, lines = connection.messages
    assert missed == {"type": "missed", "count": 5}
    assert [line["event"] for line in lines["lines"]] == ["six"]


@in_virtual_time
async def test_readers_of_the_same_lines_are_sent_the_same_bytes() -> None:
    ring = LogRing()
    room = LogRoom(ring)
    one, two, other = FakeConnection(), FakeConnection(), FakeConnection()
    wanted = LogFilter(component="app")
    for connection, kind in ((one, wanted), (two, wanted), (other, LogFilter(level="error"))):
        room.join(Reader(cast(ClientConnection, connection)), kind)
    _line(ring, "hello", request_id="req_1", number=1, thing=object)
    await asyncio.sleep(0.3)
    assert one.frames[-1] is two.frames[-1]
    (line,) = one.messages[-1]["lines"]
    assert (line["component"], line["request_id"]) == ("app", "req_1")
    assert line["facts"] == {"number": 1, "thing": "<class 'object'>"}
    assert [message["type"] for message in other.messages] == ["snapshot"]


def test_a_line_of_an_error_names_it_and_holds_on_to_nothing() -> None:
    ring = LogRing()
    try:
        raise ValueError("secret words")
    except ValueError as error:
        _line(ring, "by value", exc_info=error)
        _line(ring, "while it is handled", exc_info=True)
        _line(ring, "as a tuple", exc_info=(type(error), error, None))
    _line(ring, "without any", exc_info=True)
    lines, forgotten = ring.since(0)
    assert forgotten == 0
    assert [line.facts for line in lines] == [{"error_type": "ValueError"}] * 3 + [
        {"error_type": ""}
    ]


def test_a_line_is_bounded_and_the_number_of_lines_is() -> None:
    ring = LogRing(length=2)
    for _ in range(3):
        _line(ring, "x" * 9999, **{f"fact {number}": "y" * 9999 for number in range(99)})
    lines, forgotten = ring.since(0)
    assert (len(lines), forgotten, ring.last) == (2, 1, 3)
    assert len(lines[0].event) == 2000
    assert len(lines[0].facts) == 32
    assert len(lines[0].facts["fact 0"]) == 2000


def _memory_bytes(ring: LogRing) -> int:
    """What the texts of all lines take."""
    lines, _ = ring.since(0)
    texts = [text for line in lines for text in (line.event, *line.facts.values())]
    return sum(sys.getsizeof(text) for text in texts)


@pytest.mark.parametrize("sign", ["y", "é", "…", "𝄞"])
def test_the_lines_together_take_no_more_than_four_mebibytes(sign: str) -> None:
    ring = LogRing()
    facts = {f"fact {number}": sign * 9999 for number in range(99)}
    for number in range(300):
        _line(ring, sign * 9999, number=number, **facts)
    assert _memory_bytes(ring) <= 4 * MIB
    lines, forgotten = ring.since(0)
    assert forgotten == 300 - len(lines) > 0
    assert [line.facts["number"] for line in lines] == list(range(300 - len(lines), 300))
    assert ring.since(150)[1] == max(0, forgotten - 150)


def test_a_line_larger_than_all_that_may_be_kept_is_forgotten_and_counted() -> None:
    ring = LogRing(max_bytes=1000)
    _line(ring, "x" * 2000)
    assert (ring.since(0), ring.last) == (([], 1), 1)


@in_virtual_time
async def test_a_name_that_is_no_text_does_not_end_the_socket_of_the_log() -> None:
    ring = LogRing()
    room = LogRoom(ring)
    connection = FakeConnection()
    _line(ring, "before \udcff", name="\udcff", request_id="\udcff")
    room.join(Reader(cast(ClientConnection, connection)), LogFilter())
    _line(ring, "after", name="\ud800 é")
    await asyncio.sleep(0.3)
    snapshot, lines = connection.messages
    assert snapshot["data"]["lines"][0]["facts"] == {"name": "?"}
    assert lines["lines"][0]["facts"] == {"name": "? é"}
