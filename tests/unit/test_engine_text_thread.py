"""The thread beside the engine's loop: in order, forgettable, and whatever fails is told."""

from __future__ import annotations

import gc
import select
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from threading import Event

import pytest

from agent.engine.text_thread import TextJob, TextThread

LIMIT_MS = 60_000


@pytest.fixture
def thread() -> Iterator[TextThread]:
    thread = TextThread()
    yield thread
    thread.close()


class Told:
    """The results of jobs, in the order in which they were handed over."""

    def __init__(self, thread: TextThread) -> None:
        self._thread = thread
        self._poll = select.poll()
        self._poll.register(thread.wakes, select.POLLIN)
        self.results: list[str] = []

    def give(self, name: str, *, first: bool = False) -> TextJob[str]:
        return self._thread.do(lambda: name, self.take, first=first)

    def until(self, count: int) -> None:
        while len(self.results) < count:
            assert self._poll.poll(LIMIT_MS), "nothing came"
            self._thread.collect()

    def take(self, job: TextJob[str]) -> None:
        self.results.append(job.result())


def held(thread: TextThread) -> Callable[[], None]:
    """Keep the thread busy until what is returned is called."""
    begun, may_go = Event(), Event()

    def hold() -> None:
        begun.set()
        may_go.wait()

    thread.do(hold, lambda _: None, first=True)
    begun.wait()
    return may_go.set


def test_jobs_are_done_in_order_those_to_be_done_first_before_the_others(
    thread: TextThread,
) -> None:
    told, let_go = Told(thread), held(thread)
    for name in ("a", "b"):
        told.give(name)
    for name in ("c", "d"):
        told.give(name, first=True)
    let_go()
    told.until(4)
    assert told.results == ["c", "d", "a", "b"]


def test_what_is_forgotten_is_not_told_begun_or_not(thread: TextThread) -> None:
    told = Told(thread)
    begun, may_go = Event(), Event()

    def work(name: str) -> str:
        begun.set()
        may_go.wait()
        done.append(name)
        return name

    done: list[str] = []
    running = thread.do(partial(work, "begun"), told.take, first=False)
    waiting = thread.do(partial(work, "waiting"), told.take, first=False)
    told.give("wanted")
    begun.wait()
    thread.forget(running)
    thread.forget(waiting)
    may_go.set()
    told.until(1)
    assert told.results == ["wanted"]
    assert done == ["begun"], "what was not begun is not done"


def test_what_fails_is_raised_where_the_result_is_asked_for_and_the_next_is_done(
    thread: TextThread,
) -> None:
    told = Told(thread)
    errors: list[str] = []

    def fail() -> str:
        raise ValueError("no tokens")

    def take(job: TextJob[str]) -> None:
        with pytest.raises(ValueError, match="no tokens") as raised:
            job.result()
        errors.append(str(raised.value))

    thread.do(fail, take, first=False)
    told.give("next")
    told.until(1)
    assert errors == ["no tokens"]
    assert told.results == ["next"]


@pytest.fixture
def without_collector() -> Iterator[None]:
    """Only what nobody refers to any more is freed."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("without_collector")
@pytest.mark.parametrize("fails", [True, False])
def test_what_was_told_is_freed_at_once_refused_or_not(thread: TextThread, fails: bool) -> None:
    class Prompt:
        def tokenized(self) -> str:
            if fails:
                raise ValueError("too long")
            return "tokens"

    def give() -> weakref.ref[Prompt]:
        prompt = Prompt()
        thread.do(prompt.tokenized, take, first=False)
        return weakref.ref(prompt)

    def take(job: TextJob[str]) -> None:
        with suppress(ValueError):
            job.result()
        told.append(True)

    told: list[bool] = []
    prompt = give()
    poll = select.poll()
    poll.register(thread.wakes, select.POLLIN)
    while not told:
        assert poll.poll(LIMIT_MS), "nothing came"
        thread.collect()
    held(thread)()  # the thread is at another job by now
    assert prompt() is None


def test_nothing_is_left_to_wake_up_for_when_all_is_collected(thread: TextThread) -> None:
    told = Told(thread)
    for name in "abc":
        told.give(name)
    told.until(3)
    thread.collect()
    poll = select.poll()
    poll.register(thread.wakes, select.POLLIN)
    assert poll.poll(0) == []
