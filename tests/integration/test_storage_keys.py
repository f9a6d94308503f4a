"""API keys in their file: what may be made, what is kept of it, and who else reads and writes."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from balancer.access import Allowance, Credential, Limits
from balancer.config_file.stored_keys import has_stored_keys
from balancer.errors import Conflict, InvalidRequest, ResourceNotFound, SettingError, StoreFailed
from balancer.policy.identity.keyring import Denied, KeyRing
from balancer.policy.identity.principal import Principal
from balancer.storage import keys as kept
from balancer.storage import sql_keys, sqlite_file
from balancer.storage.sql_keys import FILE_NAME, PEPPER_NAME, SqlKeys


class Clock:
    """Unix seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


OpenStore = Callable[[], SqlKeys]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_store(tmp_path: Path, clock: Clock) -> Iterator[OpenStore]:
    opened: list[SqlKeys] = []

    def open_it() -> SqlKeys:
        opened.append(SqlKeys(tmp_path, now=clock))
        return opened[-1]

    yield open_it
    for store in opened:
        store.close()


@pytest.fixture
def empty(clock: Clock) -> Iterator[SqlKeys]:
    """In memory."""
    store = SqlKeys(None, now=clock)
    yield store
    store.close()


@pytest.fixture
def store(empty: SqlKeys) -> SqlKeys:
    """In memory, with an operator's key."""
    empty.create("ops", facts("admin"), is_managed=False)
    return empty


@pytest.fixture
def file(open_store: OpenStore) -> SqlKeys:
    """In a file, with an operator's key."""
    store = open_store()
    store.create("ops", facts("admin"), is_managed=False)
    return store


def facts(role: Any = "user", **more: Any) -> Credential:
    return Credential(digest=b"", id="", role=role, **more)


def find(store: SqlKeys, text: str, clock: Clock) -> Principal | Denied:
    """Whom a key stands for, as a balancer looks it up."""
    found = store.overview()
    ring = KeyRing(found.credentials, b"s", pepper=found.pepper)
    return ring.find(text, address="127.0.0.1", unix_s=clock.now_s)


def test_a_key_stands_for_what_was_said_of_it_also_for_who_opens_the_file_later(
    open_store: OpenStore, file: SqlKeys, clock: Clock
) -> None:
    store = file
    allowance = Allowance(limits=Limits(burst=1), classes={"chat": Limits(concurrent=2)})
    said = facts(
        tier="pro", tenant="t", models=("m",), classes=("chat",), networks=("127.0.0.0/8",),
        allowance=allowance, expires_s=2000.0,
    )  # fmt: skip
    made = store.create("app", said, is_managed=False)
    for one in (store, open_store()):
        found = find(one, made.text, clock)
        assert found == Principal(
            tenant="t", role="user", id=made.key.id, key_number=1, tier="pro", models=("m",),
            classes=("chat",), allowance=allowance, signed_in_by="key",
        )  # fmt: skip
    clock.now_s = 2000.0
    assert find(store, made.text, clock) == Denied("expired", made.key.id)
    assert found != find(store, made.text[:-1], clock)


def test_nothing_in_the_files_is_a_key_and_both_are_for_their_owners_eyes(
    file: SqlKeys, tmp_path: Path
) -> None:
    made = file.create("app", facts(), is_managed=False)
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o077 == 0
        assert made.text[12:40].encode() not in path.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {FILE_NAME, PEPPER_NAME}


@pytest.mark.parametrize(
    "said", [facts(), facts("system"), facts("public"), facts("admin", classes=("chat",))]
)
def test_the_first_key_is_an_operators(empty: SqlKeys, said: Credential) -> None:
    store = empty
    with pytest.raises(InvalidRequest, match="first key must be an admin's"):
        store.create("app", said, is_managed=False)
    assert store.overview().keys == ()
    assert store.create("app", said, is_managed=True)  # somebody of the configuration is there


def test_without_any_operator_left_the_next_key_is_an_operators_again(
    store: SqlKeys, clock: Clock
) -> None:
    store.create("other", facts("admin", expires_s=1500.0), is_managed=False)
    store.revoke("ops")
    store.create("app", facts(), is_managed=False)
    clock.now_s = 1500.0
    with pytest.raises(InvalidRequest, match="role admin"):
        store.create("app 2", facts(), is_managed=False)
    assert store.create("new", facts("admin"), is_managed=False)


def test_a_name_is_of_one_key_that_goes_on(store: SqlKeys) -> None:
    with pytest.raises(Conflict, match="there is a key of the name 'ops'"):
        store.create("ops", facts("admin"), is_managed=False)
    with pytest.raises(InvalidRequest, match="as ids do"):
        store.create("key_1", facts(), is_managed=False)
    first = store.create("app", facts(), is_managed=False).key
    store.revoke("app")
    second = store.create("app", facts(), is_managed=False).key
    assert first.id != second.id
    assert store.revoke("app").id == second.id


def test_what_would_be_over_already_is_not_made(store: SqlKeys) -> None:
    with pytest.raises(InvalidRequest, match="expired already"):
        store.create("app", facts(expires_s=1000.0), is_managed=False)


def test_a_revoked_key_is_nobodys_and_stays_so(store: SqlKeys, clock: Clock) -> None:
    made = store.create("app", facts(), is_managed=False)
    first = store.revoke(made.key.id)
    clock.now_s += 5
    assert store.revoke(made.key.id) == first
    assert find(store, made.text, clock) == Denied("unknown")
    with pytest.raises(Conflict, match="is revoked"):
        store.rotate(made.key.id, overlap_s=0)
    with pytest.raises(ResourceNotFound, match="'nobody'"):
        store.revoke("nobody")


def test_a_rotated_key_has_two_texts_until_the_overlap_ends(store: SqlKeys, clock: Clock) -> None:
    first = store.create("app", facts(), is_managed=False)
    second = store.rotate("app", overlap_s=60)
    assert second.key.id == first.key.id
    old, new = (find(store, one.text, clock) for one in (first, second))
    assert isinstance(old, Principal)
    assert isinstance(new, Principal)
    assert (old.id, old.tenant) == (new.id, new.tenant)
    clock.now_s += 60
    assert find(store, first.text, clock) == Denied("expired", first.key.id)
    assert isinstance(find(store, second.text, clock), Principal)


def test_rotated_again_only_the_latest_two_go_on(store: SqlKeys, clock: Clock) -> None:
    texts = [store.create("app", facts(), is_managed=False).text]
    texts += [store.rotate("app", overlap_s=600).text for _ in range(2)]
    good = [isinstance(find(store, one, clock), Principal) for one in texts]
    assert good == [False, True, True]


def test_a_rotated_key_ends_when_it_was_to(store: SqlKeys, clock: Clock) -> None:
    store.create("app", facts(expires_s=1010.0), is_managed=False)
    made = store.rotate("app", overlap_s=600)
    clock.now_s = 1010.0
    assert isinstance(find(store, made.text, clock), Denied)
    with pytest.raises(Conflict, match="is expired"):
        store.rotate("app", overlap_s=0)


def test_past_so_many_the_oldest_that_has_ended_gives_way_and_nobody_else(
    store: SqlKeys, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (kept, sql_keys):
        monkeypatch.setattr(module, "MOST_KEYS", 3)
    for name in ("a", "b"):
        clock.now_s += 1
        store.create(name, facts(), is_managed=False)
    with pytest.raises(Conflict, match="3 keys already"):
        store.create("c", facts(), is_managed=False)
    store.revoke("b")
    store.create("c", facts(), is_managed=False)
    assert [key.name for key in store.overview().keys] == ["ops", "a", "c"]


def test_another_process_is_noticed_and_ones_own_writing_is_not(
    open_store: OpenStore, file: SqlKeys, clock: Clock
) -> None:
    store = file
    before = store.version()
    store.create("app", facts(), is_managed=False)
    assert store.version() == before
    other = open_store()
    made = other.create("theirs", facts(), is_managed=False)
    assert store.version() != before
    assert isinstance(find(store, made.text, clock), Principal)


def test_uses_are_kept_apart_from_the_key(store: SqlKeys) -> None:
    made = store.create("app", facts(), is_managed=False)
    store.note_used({made.key.id: 1234.0, "configured-1": 5.0})
    assert {key.name: key.used_s for key in store.overview().keys} == {"ops": None, "app": 1234.0}
    assert store.revoke("app").used_s == 1234.0


def test_a_key_whose_making_failed_leaves_the_pepper_to_the_next(
    open_store: OpenStore, tmp_path: Path, clock: Clock
) -> None:
    store, other = open_store(), open_store()
    alter(tmp_path, "CREATE TRIGGER full BEFORE INSERT ON keys BEGIN SELECT RAISE(FAIL, ''); END")
    with pytest.raises(Exception, match="IntegrityError"):
        store.create("ops", facts("admin"), is_managed=False)
    alter(tmp_path, "DROP TRIGGER full")
    made = other.create("ops", facts("admin"), is_managed=False)
    assert isinstance(find(store, made.text, clock), Principal)


def test_the_pepper_is_written_where_no_link_leads(tmp_path: Path, open_store: OpenStore) -> None:
    other = tmp_path / "of-somebody-else"
    other.write_bytes(b"precious" * 10)
    (tmp_path / PEPPER_NAME).symlink_to(other)
    with pytest.raises(StoreFailed, match="cannot be written"):
        open_store().create("ops", facts("admin"), is_managed=False)
    assert other.read_bytes() == b"precious" * 10


def test_that_there_are_keys_is_known_also_after_somebody_was_killed_while_writing(
    open_store: OpenStore, tmp_path: Path
) -> None:
    open_store().create("ops", facts("admin"), is_managed=False)
    file, copy = tmp_path / FILE_NAME, tmp_path / "copy"
    copy.mkdir()
    with closing(sqlite3.connect(file, isolation_level=None)) as writer:
        writer.execute("PRAGMA cache_size=1")  # what is written goes to the file before its end
        writer.execute("BEGIN")
        writer.execute("CREATE TABLE more AS SELECT hex(zeroblob(100000))")
        for name in (FILE_NAME, f"{FILE_NAME}-journal"):
            shutil.copy(tmp_path / name, copy / name)
        writer.execute("ROLLBACK")
    assert has_stored_keys(str(copy))


# --- the file ---


def alter(directory: Path, statement: str) -> None:
    """Do something to the file as another program would."""
    with closing(sqlite3.connect(directory / FILE_NAME)) as connection, connection:
        connection.execute(statement)


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda at: (at / PEPPER_NAME).unlink(), "keys.pepper cannot be read"),
        (lambda at: (at / PEPPER_NAME).write_bytes(b"x"), "keys.pepper is broken"),
        (lambda at: (at / FILE_NAME).write_bytes(b"no database" * 1000), "not a database"),
        (lambda at: alter(at, "UPDATE keys SET content = '{}'"), "cannot be read"),
        (lambda at: alter(at, "DROP TABLE keys"), "no such table"),
        (lambda at: alter(at, "UPDATE schema_version SET version = 9"), "newer paddler-py"),
    ],
)
def test_files_that_are_broken_are_told_at_the_start(
    open_store: OpenStore, file: SqlKeys, tmp_path: Path, harm: Any, told: str
) -> None:
    file.close()
    harm(tmp_path)
    with pytest.raises(SettingError, match=told) as refused:
        open_store()
    assert "\n" not in str(refused.value)


def test_a_file_that_somebody_holds_is_told_and_works_afterwards(
    open_store: OpenStore, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "LOCK_TIMEOUT_S", 0.01)
    store = open_store()
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(OperationalError, match="locked"):
            store.overview()
    made = store.create("ops", facts("admin"), is_managed=False)
    assert isinstance(find(store, made.text, clock), Principal)


def test_a_file_in_place_of_the_one_that_was_opened_is_not_taken_for_it(
    file: SqlKeys, tmp_path: Path
) -> None:
    (tmp_path / FILE_NAME).rename(tmp_path / "elsewhere")
    with pytest.raises(StoreFailed, match="moved or replaced"):
        file.version()


def test_whether_there_are_keys_is_seen_without_opening_the_store(
    open_store: OpenStore, tmp_path: Path
) -> None:
    assert not has_stored_keys("")
    assert not has_stored_keys(str(tmp_path))
    store = open_store()
    assert not has_stored_keys(str(tmp_path))
    store.create("ops", facts("admin"), is_managed=False)
    store.revoke("ops")
    assert has_stored_keys(str(tmp_path))
    (tmp_path / FILE_NAME).write_bytes(b"no database")
    assert not has_stored_keys(str(tmp_path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_files_that_root_makes_belong_to_the_balancers_user(
    open_store: OpenStore, tmp_path: Path
) -> None:
    os.chown(tmp_path, 4321, 4321)
    open_store().create("ops", facts("admin"), is_managed=False)
    assert {path.stat().st_uid for path in tmp_path.iterdir()} == {4321}
