"""Stored responses: one contract, kept in memory and in a real file; and what the file adds."""

from __future__ import annotations

import asyncio
import gc
import shutil
import sqlite3
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from balancer.errors import SettingError, StoreFailed
from balancer.storage import one_thread, responses
from balancer.storage.memory_responses import MemoryResponses
from balancer.storage.responses import Bounds, ResponseStore, StoredResponse
from balancer.storage.sql_responses import FILE_NAME, VERSION, SqlResponses

BOUNDS = Bounds(max_responses=4, max_bytes=1000, max_age_s=100.0)
MUCH = 10**9


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def response(
    name: str, *, tenant: str = "me", previous: str | None = None, size_bytes: int = 20
) -> StoredResponse:
    body = b"{}".ljust(size_bytes - 2)
    return StoredResponse(
        id=name, tenant=tenant, previous_id=previous, input_items=b"[]", body=body
    )


OpenStore = Callable[[Bounds], ResponseStore]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "file"])
async def open_store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: Clock
) -> AsyncIterator[OpenStore]:
    opened: list[ResponseStore] = []

    def open_it(bounds: Bounds = BOUNDS) -> ResponseStore:
        store: ResponseStore
        if request.param == "memory":
            store = MemoryResponses(bounds, now=clock)
        else:
            store = SqlResponses(tmp_path, bounds, now=clock)
        opened.append(store)
        return store

    yield open_it
    for store in opened:
        await store.close()


async def names(store: ResponseStore, *asked: str) -> list[str]:
    """Those of the responses that are there."""
    return [name for name in asked if await store.get(name, "me") is not None]


# --- the contract ---


async def test_what_was_put_is_found_as_it_was(open_store: OpenStore) -> None:
    store = open_store(BOUNDS)
    one = StoredResponse(
        id="a", tenant="me", previous_id="b", input_items=b'["\xc3\xa9"]', body=b'{"a": 1}'
    )
    assert await store.put(one)
    assert await store.get("a", "me") == one
    assert await store.get("b", "me") is None


async def test_nobody_sees_continues_or_deletes_what_is_anothers(open_store: OpenStore) -> None:
    store = open_store(BOUNDS)
    await store.put(response("a"))
    await store.put(response("b", tenant="you", previous="a"))
    assert await store.get("a", "you") is None
    assert not await store.delete("a", "you")
    assert (await store.conversation("a", "you", max_bytes=MUCH)).missing_id == "a"
    assert (await store.conversation("b", "you", max_bytes=MUCH)).missing_id == "a"
    assert await names(store, "a") == ["a"]


@pytest.mark.parametrize("size_bytes", [20, 400])  # too many, and too much
async def test_nobody_s_make_room_for_another_tenant_s(
    open_store: OpenStore, size_bytes: int
) -> None:
    store = open_store(BOUNDS)
    await store.put(response("a"))
    for name in "bcdefgh":
        await store.put(response(name, tenant="greedy", size_bytes=size_bytes))
    assert await names(store, "a") == ["a"]
    assert await store.get("b", "greedy") is None
    assert await store.get("h", "greedy") is not None


async def test_a_conversation_comes_oldest_first(open_store: OpenStore) -> None:
    store = open_store(BOUNDS)
    chain = [response("a"), response("b", previous="a"), response("c", previous="b")]
    for one in chain:
        await store.put(one)
    found = await store.conversation("c", "me", max_bytes=MUCH)
    assert (found.responses, found.missing_id, found.is_too_long) == (tuple(chain), None, False)


async def test_a_conversation_whose_beginning_is_gone_says_what_is_missing(
    open_store: OpenStore,
) -> None:
    store = open_store(BOUNDS)
    await store.put(response("a"))
    await store.put(response("b", previous="a"))
    assert await store.delete("a", "me")
    found = await store.conversation("b", "me", max_bytes=MUCH)
    assert ([one.id for one in found.responses], found.missing_id) == (["b"], "a")


async def test_a_conversation_has_a_bound_in_bytes(open_store: OpenStore) -> None:
    store = open_store(BOUNDS)
    await store.put(response("a"))
    await store.put(response("b", previous="a"))
    assert (await store.conversation("b", "me", max_bytes=39)).is_too_long
    assert not (await store.conversation("b", "me", max_bytes=40)).is_too_long


async def test_a_conversation_has_a_bound_in_responses(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responses, "MOST_LINKS", 2)
    store = open_store(BOUNDS)
    await store.put(response("a"))
    await store.put(response("b", previous="a"))
    await store.put(response("c", previous="b"))
    assert (await store.conversation("c", "me", max_bytes=MUCH)).is_too_long
    whole = await store.conversation("b", "me", max_bytes=MUCH)
    assert (len(whole.responses), whole.is_too_long) == (2, False)


async def test_what_is_deleted_is_gone_once(open_store: OpenStore) -> None:
    store = open_store(BOUNDS)
    await store.put(response("a"))
    assert await store.delete("a", "me")
    assert not await store.delete("a", "me")
    assert await store.get("a", "me") is None


async def test_past_so_many_the_oldest_goes(open_store: OpenStore) -> None:
    store = open_store(BOUNDS)
    for name in "abcde":
        await store.put(response(name))
    assert await names(store, *"abcde") == list("bcde")


async def test_past_so_many_bytes_the_oldest_go(open_store: OpenStore) -> None:
    store = open_store(BOUNDS)
    for name in "abc":
        await store.put(response(name, size_bytes=300))
    await store.put(response("d", size_bytes=700))
    assert await names(store, *"abcd") == ["c", "d"]
    await store.delete("d", "me")
    await store.put(response("e", size_bytes=700))
    assert await names(store, *"cde") == ["c", "e"]


async def test_what_is_larger_than_the_bound_is_not_taken_and_drives_nothing_out(
    open_store: OpenStore,
) -> None:
    store = open_store(BOUNDS)
    await store.put(response("a"))
    assert not await store.put(response("b", size_bytes=1001))
    assert await store.put(response("c", size_bytes=980))
    assert await names(store, *"abc") == ["a", "c"]


async def test_other_bounds_hold_from_the_next_use_on(open_store: OpenStore) -> None:
    store = open_store(BOUNDS)
    for name in ("a", "b", "c"):
        await store.put(response(name))
    store.resize(Bounds(max_responses=2, max_bytes=1000, max_age_s=100.0))
    assert await store.get("a", "me") is None
    assert await store.get("b", "me")
    store.resize(Bounds(max_responses=2, max_bytes=19, max_age_s=100.0))
    assert not await store.put(response("d"))
    assert await store.put(response("e", size_bytes=19))
    assert await store.get("c", "me") is None


async def test_a_bound_of_nothing_takes_nothing(open_store: OpenStore) -> None:
    store = open_store(Bounds(max_responses=0, max_bytes=1000))
    assert not await store.put(response("a"))


async def test_a_conversation_that_goes_on_keeps_its_beginning(open_store: OpenStore) -> None:
    store = open_store(BOUNDS)
    await store.put(response("a"))
    await store.put(response("b", previous="a"))
    await store.put(response("x"))
    await store.conversation("b", "me", max_bytes=MUCH)
    await store.get("x", "me")
    for name in "yz":
        await store.put(response(name))
    assert await names(store, *"abxyz") == ["a", "b", "y", "z"]


async def test_what_was_not_used_for_long_goes(open_store: OpenStore, clock: Clock) -> None:
    store = open_store(BOUNDS)
    await store.put(response("a"))
    await store.put(response("b"))
    clock.now_s = 60.0
    await store.conversation("a", "me", max_bytes=MUCH)
    clock.now_s = 101.0
    assert await names(store, "a", "b") == ["a"]
    clock.now_s = 161.0
    assert (await store.conversation("a", "me", max_bytes=MUCH)).missing_id == "a"


async def test_the_same_id_replaces(open_store: OpenStore) -> None:
    store = open_store(BOUNDS)
    await store.put(response("a", size_bytes=900))
    await store.put(response("a", size_bytes=30))
    await store.put(response("b", size_bytes=900))
    assert await names(store, "a", "b") == ["a", "b"]
    found = await store.get("a", "me")
    assert found is not None
    assert found.size_bytes == 30


async def test_many_at_once_are_all_done(open_store: OpenStore) -> None:
    store = open_store(Bounds(max_responses=100, max_bytes=MUCH))
    await asyncio.gather(*(store.put(response(str(number))) for number in range(100)))
    assert len(await names(store, *map(str, range(100)))) == 100


# --- the file ---


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / FILE_NAME


def opened(tmp_path: Path, bounds: Bounds = BOUNDS) -> SqlResponses:
    return SqlResponses(tmp_path, bounds, now=Clock())


async def refusal(tmp_path: Path) -> str:
    with pytest.raises(SettingError) as refused:
        opened(tmp_path)
    line = str(refused.value)
    assert line.startswith(f"data_dir: {tmp_path}")
    assert "\n" not in line
    return line


def alter(path: Path, statement: str, *values: Any) -> None:
    """Do something to the file as another program would."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


async def test_a_file_is_there_after_a_restart(tmp_path: Path) -> None:
    first = opened(tmp_path / "new" / "directory")
    await first.put(response("a"))
    await first.put(response("b", previous="a"))
    await first.close()
    second = opened(tmp_path / "new" / "directory")
    found = await second.conversation("b", "me", max_bytes=MUCH)
    assert found.responses == (response("a"), response("b", previous="a"))
    await second.close()


async def test_a_killed_balancer_loses_no_response(tmp_path: Path) -> None:
    killed = opened(tmp_path / "killed")
    await killed.put(response("a"))
    await killed.delete("a", "me")
    await killed.put(response("b"))
    shutil.copytree(tmp_path / "killed", tmp_path / "left")  # as it is at this moment
    started = opened(tmp_path / "left")
    assert await names(started, "a", "b") == ["b"]
    await started.close()
    await killed.close()


async def test_bounds_hold_over_a_restart(tmp_path: Path) -> None:
    first = opened(tmp_path)
    for name in "abcd":
        await first.put(response(name))
    await first.conversation("a", "me", max_bytes=MUCH)
    await first.close()
    second = opened(tmp_path, Bounds(max_responses=2, max_bytes=1000))
    assert await names(second, *"abcd") == ["a", "d"]
    await second.put(response("e", size_bytes=970))
    assert await names(second, *"ade") == ["a", "e"]
    await second.close()


def modes(directory: Path) -> list[int]:
    """Of all files there, of which there is at least one."""
    found = [one.stat().st_mode for one in directory.iterdir()]
    assert found
    return found


async def test_the_file_is_for_its_owners_eyes(tmp_path: Path) -> None:
    store = opened(tmp_path)
    await store.put(response("a"))
    assert {mode & 0o077 for mode in modes(tmp_path)} == {0}
    await store.close()


async def test_two_balancers_do_not_share_a_file(tmp_path: Path) -> None:
    store = opened(tmp_path)
    assert "the other balancer" in await refusal(tmp_path)
    await store.put(response("a"))
    assert await names(store, "a") == ["a"]
    await store.close()
    again = opened(tmp_path)
    assert await names(again, "a") == ["a"]
    await again.close()


def overwrite(path: Path, content: bytes, *, at: int = 0) -> None:
    """Change a file's bytes from a place on; make it if need be."""
    path.touch()
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


async def test_a_broken_file_is_told_at_the_start(tmp_path: Path, path: Path) -> None:
    overwrite(path, b"no database at all" * 1000)
    assert "not a database" in await refusal(tmp_path)


async def test_a_file_that_may_only_be_read_is_told_at_the_start(
    tmp_path: Path, path: Path
) -> None:
    await opened(tmp_path).close()
    overwrite(path, b"\x09", at=18)  # SQLite takes it for written by one that knows more
    assert "readonly" in await refusal(tmp_path)


async def test_a_place_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    overwrite(tmp_path / "file", b"")
    with pytest.raises(SettingError, match=r"data_dir: .*cannot be written"):
        opened(tmp_path / "file")


async def test_a_newer_file_is_refused(tmp_path: Path, path: Path) -> None:
    await opened(tmp_path).close()
    alter(path, "UPDATE schema_version SET version = ?", VERSION + 1)
    line = await refusal(tmp_path)
    assert "newer paddler-py" in line
    assert f"schema {VERSION + 1}" in line


async def test_another_programs_file_is_refused(tmp_path: Path, path: Path) -> None:
    alter(path, "CREATE TABLE photos (id INTEGER)")
    assert "another program" in await refusal(tmp_path)


async def test_a_file_that_fails_later_fails_what_is_asked_of_it(
    tmp_path: Path, path: Path
) -> None:
    await opened(tmp_path).close()
    alter(path, "ALTER TABLE contents RENAME TO elsewhere")
    store = opened(tmp_path)
    with pytest.raises(StoreFailed, match="no such table"):
        await store.put(response("a"))
    await store.close()
    alter(path, "ALTER TABLE elsewhere RENAME TO contents")
    store = opened(tmp_path)
    assert await names(store, "a") == []
    assert await store.put(response("a"))
    await store.close()


async def test_a_disk_that_hangs_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path)
    monkeypatch.setattr(one_thread, "TIMEOUT_S", 0.0)
    with pytest.raises(StoreFailed, match="no answer"):
        await store.put(response("a"))
    monkeypatch.undo()
    assert await names(store, "a") == ["a"]  # what was begun came to its end
    await store.close()


async def test_too_much_at_once_fails_instead_of_piling_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_thread, "MOST_AT_ONCE", 2)
    store = opened(tmp_path)
    done = await asyncio.gather(
        *(store.put(response(name)) for name in "abc"), return_exceptions=True
    )
    assert [isinstance(one, StoreFailed) for one in done] == [False, False, True]
    assert await store.put(response("d"))
    await store.close()


async def test_what_was_said_is_in_no_error_of_the_file_seen_by_anybody_or_not(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await opened(tmp_path).close()
    alter(
        path,
        "CREATE TRIGGER full BEFORE INSERT ON responses BEGIN SELECT RAISE(FAIL, 'full'); END",
    )
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    store = opened(tmp_path)
    said = StoredResponse(
        id="a", tenant="canary", previous_id=None, input_items=b'["canary"]', body=b'"canary"'
    )
    with pytest.raises(StoreFailed) as caught:
        await store.put(said)
    assert "canary" not in "".join(traceback.format_exception(caught.value))
    monkeypatch.setattr(one_thread, "TIMEOUT_S", 0.0)
    with pytest.raises(StoreFailed, match="no answer"):
        await store.put(said)
    await store.close()
    del caught
    gc.collect()
    await asyncio.sleep(0)
    assert told == []  # of an operation that was given up, and failed later
