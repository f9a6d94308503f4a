"""What the agent tells of itself, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec

from agent.cached_prefixes import CachedPrefixes
from agent.heartbeat import Heartbeats, read_hardware
from protocol.codec import BALANCER_RECEIVES
from protocol.jsonrpc import CallId, Notification
from protocol.models import ServedModel
from protocol.to_balancer import CacheChanged, Heartbeat, IssueCleared, IssueRaised

MODEL = ServedModel(name="demo", context_tokens=2048)


class Nobody:
    """Slot holders of an idle agent."""

    running: tuple[CallId, ...] = ()
    waiting: tuple[CallId, ...] = ()
    paused: tuple[CallId, ...] = ()


def heartbeats(
    cached: CachedPrefixes | None = None,
) -> tuple[Heartbeats, Callable[[], list[msgspec.Struct]]]:
    """Heartbeats, and what they sent since one asked last."""
    sent: list[bytes] = []

    def taken() -> list[msgspec.Struct]:
        messages = [message for frame in sent for message in BALANCER_RECEIVES.decode(frame)]
        sent.clear()
        assert all(isinstance(message, Notification) for message in messages)
        return [message.params for message in messages if isinstance(message, Notification)]

    return Heartbeats(Nobody(), sent.append, cached), taken


async def a_tick() -> None:
    await asyncio.sleep(0)


async def test_changes_of_one_tick_are_one_heartbeat() -> None:
    target, taken = heartbeats()
    target.start(60)
    target.changed(freed=True)
    target.changed(freed=False)
    target.changed(freed=True)
    await a_tick()
    [beat] = taken()
    assert isinstance(beat, Heartbeat)
    assert beat.status.capacity_version == 2
    await a_tick()
    assert taken() == []
    target.stop()


async def test_people_are_told_what_is_served_and_what_is_wrong_in_one_line() -> None:
    target, _ = heartbeats()
    assert target.in_words() == ""
    target.engine_ready(MODEL, "", slots=4, kv_cells=16)
    assert target.in_words() == "demo: 0 of 4 slots busy"
    target.raise_issue("keep_warm", "One prompt is too long.")
    assert target.in_words() == "demo: 0 of 4 slots busy; One prompt is too long."
    target.engine_gone()
    assert target.in_words() == "One prompt is too long."


async def test_what_changed_in_the_cache_is_told_once_a_tick_and_again_after_a_beat() -> None:
    cached = CachedPrefixes()
    target, taken = heartbeats(cached)
    cached.start_over()
    target.cache_changed()
    await a_tick()
    assert taken() == []
    target.start(60)
    target.cache_changed()
    target.changed(freed=False)
    await a_tick()
    changes = taken()
    assert CacheChanged(cache_seq=1, starts_over=True) in changes
    assert len(changes) == 2
    cached.start_over()
    target.cache_changed()
    await a_tick()
    assert taken() == [CacheChanged(cache_seq=2, starts_over=True)]
    assert target.status().cache_seq == 2
    target.stop()


async def test_nothing_is_sent_while_there_is_no_link() -> None:
    target, taken = heartbeats()
    target.changed(freed=True)
    await a_tick()
    assert taken() == []


async def test_every_status_is_one_further_in_the_sequence() -> None:
    target, _ = heartbeats()
    assert [target.status().seq for _ in range(3)] == [1, 2, 3]


async def test_it_beats_at_the_interval() -> None:
    target, taken = heartbeats()
    target.start(0.0)
    beats: list[msgspec.Struct] = []
    while len(beats) < 3:
        await a_tick()
        beats += taken()
    target.stop()


async def test_a_ready_engine_brings_slots_and_a_dead_one_takes_them_but_not_the_model() -> None:
    target, _ = heartbeats()
    target.engine_ready(MODEL, "key", slots=4, kv_cells=8192)
    target.engine_stepped(17, has_work=True, kv_cells_used=96)
    status = target.status()
    assert (status.slots_total, status.kv_cells_total, status.engine_steps) == (4, 8192, 17)
    assert status.has_work
    version = status.capacity_version

    target.engine_gone()

    status = target.status()
    assert (status.slots_total, status.has_work, status.kv_cells_used) == (0, False, 0)
    assert status.capacity_version == version
    assert target.model == MODEL


async def test_the_agent_s_clock_is_told_with_each_status() -> None:
    at_s = 1000.0
    target = Heartbeats(Nobody(), lambda _: None, wall_clock=lambda: at_s)
    assert target.status().clock_s == 1000.0
    at_s = 1001.5
    assert target.status().clock_s == 1001.5


async def test_a_load_is_told_of_until_the_engine_is_ready_or_gone() -> None:
    target, taken = heartbeats()
    target.start(60)
    target.engine_loading(0.12345)
    target.engine_loading(0.2)
    await a_tick()
    [beat] = taken()
    assert isinstance(beat, Heartbeat)
    assert beat.status.load_progress == 0.2
    target.engine_ready(MODEL, "key", slots=4, kv_cells=8192)
    assert target.status().load_progress is None
    target.engine_loading(1.5)
    assert target.status().load_progress == 1.0
    target.engine_gone()
    assert target.status().load_progress is None
    target.stop()


async def test_an_issue_is_told_once_and_stays_in_the_status_until_it_is_cleared() -> None:
    target, taken = heartbeats()
    target.raise_issue("engine_died", "killed")
    target.raise_issue("engine_died", "killed")
    [raised] = taken()
    assert isinstance(raised, IssueRaised)
    assert [issue.code for issue in target.status().issues] == ["engine_died"]
    target.clear_issue("engine_died")
    target.clear_issue("engine_died")
    assert taken() == [IssueCleared(code="engine_died")]
    assert target.status().issues == ()


def test_the_hardware_is_read_from_proc(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Fast CPU\nmodel name\t: x\n")
    (tmp_path / "meminfo").write_text("MemTotal:       2048 kB\nMemFree: 1 kB\n")
    hardware = read_hardware(tmp_path)
    assert (hardware.cpu, hardware.memory_bytes) == ("Fast CPU", 2048 * 1024)
    assert hardware.cores >= 1


def test_a_machine_that_tells_nothing_of_itself_is_no_error(tmp_path: Path) -> None:
    assert read_hardware(tmp_path).memory_bytes == 0
