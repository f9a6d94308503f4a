"""What was had of a day, kept in a real file."""

from __future__ import annotations

from pathlib import Path

from balancer.policy.limits.day import DayCount
from balancer.storage.sql_days import FILE_NAME, SqlDays

TODAY = 20_000


def count(subject: str, *, day: int = TODAY, requests: int = 1, tokens: int = 0) -> DayCount:
    return DayCount(subject=subject, day=day, requests=requests, tokens=tokens)


async def test_what_is_written_is_there_after_a_restart_and_the_last_that_was_said_of_each(
    tmp_path: Path,
) -> None:
    store = SqlDays(tmp_path)
    await store.save([count("key a"), count("key b", tokens=7)], today=TODAY)
    await store.save([count("key a", requests=5)], today=TODAY)
    await store.close()
    again = SqlDays(tmp_path)
    assert await again.load(TODAY) == [count("key b", tokens=7), count("key a", requests=5)]
    await again.close()
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


async def test_days_that_are_over_are_not_read_and_go_when_the_next_is_written(
    tmp_path: Path,
) -> None:
    store = SqlDays(tmp_path)
    await store.save([count("key a", day=TODAY - 1)], today=TODAY - 1)
    assert await store.load(TODAY) == []
    await store.save([count("key b")], today=TODAY)
    assert [one.subject for one in await store.load(0)] == ["key b"]
    await store.close()


async def test_of_more_than_may_be_kept_those_stay_who_had_most(tmp_path: Path) -> None:
    store = SqlDays(tmp_path, most=3)
    await store.save([count(f"key {n}", tokens=n) for n in range(6)], today=TODAY)
    assert [one.tokens for one in await store.load(TODAY)] == [5, 4, 3]
    await store.save([count("key 6", tokens=6)], today=TODAY)
    assert [one.tokens for one in await store.load(TODAY)] == [6, 5, 4]
    await store.save([count(f"few {n}") for n in range(4)], today=TODAY)
    assert [one.tokens for one in await store.load(TODAY)] == [6, 5, 4]
    await store.close()
