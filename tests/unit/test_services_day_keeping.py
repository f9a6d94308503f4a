"""The loop that keeps what was had of days' limits, with a store that may fail."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from balancer.access import Limits
from balancer.errors import SettingError, StoreFailed
from balancer.policy.limits.amounts import DAY_S, Bound, Moment, Refusal
from balancer.policy.limits.day import DayCount
from balancer.policy.limits.ledger import Ledger
from balancer.services.day_keeping import INTERVAL_S, MOST_AT_ONCE, DayKeeping
from tests.support.virtual_time import in_virtual_time

TODAY = 20_000
UNIX_S = float(TODAY * DAY_S)


class Store:
    """Satisfies `DayStore`, in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, DayCount] = {}
        self.is_broken = False
        self.defect: Exception | None = None
        self.is_closed = False

    async def load(self, from_day: int) -> list[DayCount]:
        self._check()
        return [one for one in self.kept.values() if one.day >= from_day]

    async def save(self, counts: Sequence[DayCount], *, today: int) -> None:
        self._check()
        assert len(counts) <= MOST_AT_ONCE
        assert today == TODAY
        self.kept |= {one.subject: one for one in counts}

    async def close(self) -> None:
        self.is_closed = True

    def _check(self) -> None:
        if self.defect is not None:
            raise self.defect
        if self.is_broken:
            raise StoreFailed("the disk is full")


def come(ledger: Ledger, subject: str, *, most: int = 9) -> bool:
    """A request; whether it was let in."""
    bound = Bound(subject, Limits(requests_per_day=most))
    return not isinstance(ledger.enter((bound,), Moment(0.0, UNIX_S)), Refusal)


def keeping(ledger: Ledger, store: Store) -> DayKeeping:
    return DayKeeping(ledger, store, now=lambda: 0.0, wall_clock=lambda: UNIX_S)


async def test_a_balancer_that_starts_again_goes_on_with_everybody_s_day() -> None:
    store, ledger = Store(), Ledger()
    service = keeping(ledger, store)
    await service.begin()
    assert come(ledger, "key a", most=1)
    await service.end()
    assert store.is_closed

    again = Ledger()
    await keeping(again, store).begin()
    assert not come(again, "key a", most=1)


async def test_what_cannot_be_written_is_written_later() -> None:
    store, ledger = Store(), Ledger()
    service = keeping(ledger, store)
    come(ledger, "key a")
    store.is_broken = True
    assert not await service.keep()
    come(ledger, "key a")
    come(ledger, "key b")
    assert not await service.keep()
    store.is_broken = False
    assert await service.keep()
    assert await service.keep()
    assert {one.subject: one.requests for one in store.kept.values()} == {"key a": 2, "key b": 1}


async def test_many_are_written_piece_by_piece_and_all_of_them_at_the_end() -> None:
    store, ledger = Store(), Ledger()
    service = keeping(ledger, store)
    for number in range(MOST_AT_ONCE + 500):
        come(ledger, f"key {number}")
    await service.keep()
    assert len(store.kept) == MOST_AT_ONCE
    await service.end()
    assert len(store.kept) == MOST_AT_ONCE + 500


@in_virtual_time
async def test_a_balancer_that_is_killed_has_kept_what_was_had_seconds_ago() -> None:
    store, ledger = Store(), Ledger()
    service = keeping(ledger, store)
    async with asyncio.TaskGroup() as tasks:
        loop = tasks.create_task(service.run())
        come(ledger, "key a")
        await asyncio.sleep(INTERVAL_S + 1)
        come(ledger, "key a")
        loop.cancel()
    assert store.kept["key a"].requests == 1


@in_virtual_time
async def test_a_defect_of_the_store_ends_neither_the_loop_nor_the_balancer() -> None:
    store, ledger = Store(), Ledger()
    service = keeping(ledger, store)
    store.defect = RuntimeError("nobody thought of that")
    async with asyncio.TaskGroup() as tasks:
        loop = tasks.create_task(service.run())
        come(ledger, "key a")
        await asyncio.sleep(INTERVAL_S + 1)
        store.defect = None
        await asyncio.sleep(INTERVAL_S)
        loop.cancel()
    assert store.kept["key a"].requests == 1


async def test_a_balancer_does_not_start_on_a_file_that_it_cannot_read() -> None:
    store = Store()
    store.is_broken = True
    with pytest.raises(SettingError, match="data_dir: the disk is full"):
        await keeping(Ledger(), store).begin()
