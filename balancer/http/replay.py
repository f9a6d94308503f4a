"""Streams that their client may take up again: events are kept, with ids, for a while.

The generation runs on without a client for a time; whoever comes back says which event was the last
and gets each one after it once, as fast as it reads. One reader at a time: a new one takes over.

    running, read -> running, unread (30 s, then cancelled) -> ended (kept 60 s) -> forgotten
         ^----------------'
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from balancer.dispatch.sink import Flow
from balancer.http.shape import StreamForm
from balancer.settings import LiveSettings, Settings

MOST_STREAMS = 10_000
"""Kept at once, besides what their bytes bound."""
_END_OF_EVENT = b"\n\n"
_PIECE_BYTES = 32 * 1024
"""Given to a reader at once, before it is asked whether it keeps up."""


class Reader(Protocol):
    """A client's stream, as `http.sse.EventStream`."""

    def attach(self, flow: Flow) -> None: ...

    def send(self, events: bytes) -> None: ...


class Replay:
    """One resumable stream. Events are numbered from 0; their id is `<request id>:<number>`."""

    def __init__(self, store: Replays, request_id: str, tenant: str, *, form: StreamForm) -> None:
        self.request_id = request_id
        self.form = form
        self.tenant = tenant
        self.headers: Callable[[], dict[str, str]] = dict
        self.size_bytes = 0
        self.has_ended = asyncio.Event()
        self.error: Exception | None = None
        """Why there is not even one event."""
        self._store = store
        self._events: list[bytes] = []
        self._next_number = 0
        self._given = 0
        """How many of the kept events the reader has."""
        self._reader: Reader | None = None
        self._is_slow = False
        self._flow: Flow | None = None
        self._is_given_up = False
        self._caught_up = asyncio.Event()
        self._taken_over = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def run(self, work: Coroutine[Any, Any, None], then: Callable[[], None]) -> None:
        """Start what fills it; it goes on whoever reads. `then` is called at its end, however it
        comes."""
        self._task = asyncio.create_task(work, name=f"stream {self.request_id}")
        self._task.add_done_callback(self._on_done)
        self._task.add_done_callback(lambda _: then())

    # --- what the generation says ---

    def attach(self, flow: Flow) -> None:
        """The generation, to be paused while the reader is slow."""
        self._flow = flow

    def send(self, events: bytes) -> None:
        """Whole events; they get their ids, are kept, and go to the reader."""
        count = 0
        for event in events.split(_END_OF_EVENT):
            if event:
                head = f"id: {self.request_id}:{self._next_number}\n".encode()
                self._events.append(head + event + _END_OF_EVENT)
                self._next_number += 1
                count += len(self._events[-1])
        self.size_bytes += count
        self._store.grew(self, count)
        self._pump()

    # --- who reads ---

    def number_after(self, event_id: str) -> int | None:
        """Where to go on after an event; None: it is not one of this stream's."""
        request_id, _, number = event_id.rpartition(":")
        if request_id != self.request_id or not number.isascii() or not number.isdigit():
            return None
        if len(number) > 9 or int(number) >= self._next_number:
            return None
        return int(number) + 1

    async def read_by(self, reader: Reader, *, start: int = 0) -> None:
        """Give a reader everything from an event on, until the end or until another takes over."""
        self._taken_over.set()
        taken_over = self._taken_over = asyncio.Event()
        self._keep_timer(None)
        self._reader, self._given = reader, start
        reader.attach(_ReadersFlow(self, reader))
        self.set_slow(reader, is_slow=False)
        ended = asyncio.ensure_future(self._until_all_is_given(taken_over))
        over = asyncio.ensure_future(taken_over.wait())
        try:
            await asyncio.wait((ended, over), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            over.cancel()
            if self._reader is reader:
                self._reader = None
                self._set_paused(False)
                settings = self._store.settings
                has_ended = self.has_ended.is_set()
                self._keep_timer(
                    settings.stream_replay_s if has_ended else settings.stream_unread_s
                )

    def set_slow(self, reader: Reader, *, is_slow: bool) -> None:
        """The reader does not keep up, or does again; of an earlier reader it does not matter."""
        if reader is not self._reader:
            return
        self._is_slow = is_slow
        self._pump()

    @property
    def flow(self) -> Flow | None:
        """The generation's handle, while it runs."""
        return self._flow

    @property
    def is_taken_over(self) -> bool:
        """Whether nobody reads now, or somebody who came later."""
        return self._taken_over.is_set()

    async def settled(self) -> None:
        """Wait for what fills it."""
        if self._task is not None:
            await asyncio.wait((self._task,))

    def forget(self) -> None:
        """Free everything; what still runs is cancelled."""
        self._keep_timer(None)
        if self._task is not None and not self._task.done():
            self._task.cancel()
        if self._reader is None:
            self._events.clear()

    def give_up(self) -> None:
        """It can be taken up no more; a reader that is there gets the rest all the same."""
        self._is_given_up = True
        self._drop_given()

    def _pump(self) -> None:
        """Give the reader what it has not, as long as it keeps up; else pause the generation."""
        reader = self._reader
        while reader is not None and not self._is_slow and self._given < len(self._events):
            piece = bytearray()
            while self._given < len(self._events) and len(piece) < _PIECE_BYTES:
                piece += self._events[self._given]
                self._given += 1
            reader.send(bytes(piece))  # it may call `set_slow`
        if self._is_given_up:
            self._drop_given()
        is_behind = reader is not None and self._given < len(self._events)
        self._set_paused(is_behind or (reader is not None and self._is_slow))
        if not is_behind:
            self._caught_up.set()
        else:
            self._caught_up.clear()

    def _drop_given(self) -> None:
        """Of a stream that was given up nothing is kept but what its reader still has to get."""
        if self._reader is None:
            self._events.clear()
        else:
            del self._events[: self._given]
        self._given = 0

    def _set_paused(self, is_paused: bool) -> None:
        if self._flow is not None:
            if is_paused:
                self._flow.pause()
            else:
                self._flow.resume()

    async def _until_all_is_given(self, taken_over: asyncio.Event) -> None:
        await self.has_ended.wait()
        while not taken_over.is_set() and self._given < len(self._events):
            self._caught_up.clear()
            await self._caught_up.wait()

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # kept in `error`
        headers = self.headers()
        self.headers = lambda: headers
        self._flow = None
        self.has_ended.set()
        if self._reader is None:
            self._keep_timer(self._store.settings.stream_replay_s)

    def _keep_timer(self, seconds: float | None) -> None:
        """Be forgotten after so long, or not."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(seconds, self._store.forget, self)


class _ReadersFlow:
    """What a reader may do to the generation: slow it down, but not end it."""

    def __init__(self, replay: Replay, reader: Reader) -> None:
        self._replay = replay
        self._reader = reader

    @property
    def attempts(self) -> int:
        flow = self._replay.flow
        return flow.attempts if flow is not None else 0

    @property
    def queue_ms(self) -> float:
        flow = self._replay.flow
        return flow.queue_ms if flow is not None else 0.0

    def pause(self) -> None:
        self._replay.set_slow(self._reader, is_slow=True)

    def resume(self) -> None:
        self._replay.set_slow(self._reader, is_slow=False)

    def drop(self, reason: str) -> None:
        """The reader is gone, and its connection with it; another may come."""
        del reason


class _Kept:
    """A tenant's, the oldest first."""

    def __init__(self) -> None:
        self.streams: OrderedDict[str, Replay] = OrderedDict()
        self.size_bytes = 0


class Replays:
    """All resumable streams; together their events have at most `stream_replay_bytes`. Past that,
    whoever has most can take up one less: nobody's streams make room for another tenant's."""

    def __init__(self, settings: LiveSettings) -> None:
        self._live = settings
        self._of: dict[str, _Kept] = {}
        self._count = 0
        self.size_bytes = 0

    @property
    def settings(self) -> Settings:
        """Those in force."""
        return self._live.current

    def __len__(self) -> int:
        return self._count

    def open(self, request_id: str, tenant: str, *, form: StreamForm) -> Replay:
        """A new one."""
        replay = Replay(self, request_id, tenant, form=form)
        self._of.setdefault(tenant, _Kept()).streams[request_id] = replay
        self._count += 1
        if self._count > MOST_STREAMS:
            self._give_up_oldest(max(self._of.values(), key=lambda kept: len(kept.streams)))
        return replay

    def find(self, request_id: str, tenant: str) -> Replay | None:
        """One of this tenant's that can be taken up."""
        kept = self._of.get(tenant)
        return None if kept is None else kept.streams.get(request_id)

    def grew(self, replay: Replay, count: int) -> None:
        """Count bytes of one that can be taken up; past the bound some no longer can."""
        if self.find(replay.request_id, replay.tenant) is None:
            return
        self._of[replay.tenant].size_bytes += count
        self.size_bytes += count
        while self.size_bytes > self.settings.stream_replay_bytes:
            self._give_up_oldest(max(self._of.values(), key=lambda kept: kept.size_bytes))

    def forget(self, replay: Replay) -> None:
        """One's time is over."""
        self._take_out(replay)
        replay.forget()

    async def settled(self) -> None:
        """Wait until nothing fills any of them."""
        for replay in self._all():
            await replay.settled()

    def close(self) -> None:
        """Forget them all."""
        for replay in self._all():
            self.forget(replay)

    def _all(self) -> list[Replay]:
        return [replay for kept in self._of.values() for replay in kept.streams.values()]

    def _give_up_oldest(self, kept: _Kept) -> None:
        oldest = next(iter(kept.streams.values()))
        self._take_out(oldest)
        oldest.give_up()
        if oldest.has_ended.is_set() or oldest.is_taken_over:
            oldest.forget()

    def _take_out(self, replay: Replay) -> None:
        kept = self._of.get(replay.tenant)
        if kept is None or kept.streams.pop(replay.request_id, None) is None:
            return
        kept.size_bytes -= replay.size_bytes
        self.size_bytes -= replay.size_bytes
        self._count -= 1
        if not kept.streams:
            del self._of[replay.tenant]
