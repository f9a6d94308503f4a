"""A hangup that comes before anybody acts on it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from protocol.hangup import hangup_came_before, remember_hangup


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, handler)


def test_a_hangup_is_remembered_and_ends_nothing() -> None:
    remember_hangup()
    assert not hangup_came_before(signal.getsignal(signal.SIGHUP))
    signal.raise_signal(signal.SIGHUP)
    assert hangup_came_before(signal.getsignal(signal.SIGHUP))


def test_other_handlers_remember_nothing() -> None:
    for handler in (signal.SIG_DFL, signal.SIG_IGN, None, print):
        assert not hangup_came_before(handler)


def test_outside_the_main_thread_nothing_changes() -> None:
    before = signal.getsignal(signal.SIGHUP)
    thread = threading.Thread(target=remember_hangup)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGHUP) is before
