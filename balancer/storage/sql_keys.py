"""API keys in a SQLite file, through SQLAlchemy: `paddler-py keys` and a balancer that runs share
it. Without a directory it is in memory.

Blocks, and belongs to the thread that opens it. What is written is on the disk before it is told:
a key that was revoked must not come back.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import structs
from sqlalchemy import (
    Column,
    Float,
    LargeBinary,
    MetaData,
    String,
    Table,
    bindparam,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

from balancer.access import Credential, keyed_digest_of
from balancer.config_file.stored_keys import KEYS_FILE
from balancer.errors import SettingError, StoreFailed
from balancer.policy.identity.key_text import RANDOM_BYTES, SHOWN_CHARS, key_text
from balancer.storage.keys import (
    ID_BEGINNING,
    MOST_KEYS,
    KeyVersion,
    MadeKey,
    Overview,
    StoredKey,
    check_may_be_made,
    check_may_be_rotated,
    found,
    rotated,
    to_give_way,
)
from balancer.storage.sqlite_file import SqliteFile, Step, make_private, reason

FILE_NAME = KEYS_FILE
PEPPER_NAME = "keys.pepper"
PEPPER_BYTES = 32
_PRAGMAS = ("journal_mode=DELETE", "synchronous=FULL")

_SCHEMA = MetaData()
_KEYS = Table(
    "keys",
    _SCHEMA,
    Column("id", String, primary_key=True),
    Column("created_s", Float, nullable=False, index=True),
    Column("used_s", Float),
    Column("content", LargeBinary, nullable=False),
)
"""`content` is a `StoredKey` as JSON, apart from what changes often."""
_STEPS: tuple[Step, ...] = (_SCHEMA.create_all,)

_DECODER = msgspec.json.Decoder(StoredKey)
_T = TypeVar("_T")


class SqlKeys:
    """All keys of one directory, which several processes may use at once."""

    def __init__(self, directory: Path | None, *, now: Callable[[], float]) -> None:
        """Open the file, or make it; `now` gives unix seconds. Raises `SettingError`."""
        self._path = None if directory is None else directory / FILE_NAME
        self._pepper_path = None if directory is None else directory / PEPPER_NAME
        self._now = now
        self._pepper = b""
        self._known: dict[bytes, StoredKey] = {}
        """By what is stored of them: what did not change is not made anew, as ten thousand keys
        would keep the garbage collector, and with it the event loop, busy."""
        self._file = SqliteFile(
            self._path, pragmas=_PRAGMAS, steps=_STEPS, remedy="wait for whoever holds it"
        )
        self._inode = self._inode_now()
        try:
            self.overview()
        except (StoreFailed, SQLAlchemyError) as error:
            self.close()
            told = reason(error) if isinstance(error, SQLAlchemyError) else error
            raise SettingError(f"data_dir: {self._path} cannot be used ({told})") from error

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def version(self) -> int:
        """Another one than before: another process has changed something meanwhile. Raises
        `StoreFailed`, also where the file is another one by now."""
        if self._inode_now() != self._inode:
            raise StoreFailed(f"{self._path} was moved or replaced; start the balancer anew")
        driver: Any = self._file.connection.connection.driver_connection
        try:
            row = driver.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error as error:
            raise StoreFailed(f"the file of keys: {error}") from error
        return int(row[0])

    def overview(self) -> Overview:
        """Everything. Raises `StoreFailed` for what cannot be read."""
        return self._transact(lambda: Overview(keys=self._all(), pepper=self._pepper))

    def create(self, name: str, facts: Credential, *, is_managed: bool) -> MadeKey:
        """A new key. Raises as `check_may_be_made`, and `Conflict` where there are too many."""
        return self._transact(lambda: self._create(name, facts, is_managed=is_managed))

    def revoke(self, wanted: str) -> StoredKey:
        """It opens nothing from now on; once more changes nothing. Raises `ResourceNotFound`."""
        return self._transact(lambda: self._revoke(wanted))

    def rotate(self, wanted: str, *, overlap_s: float) -> MadeKey:
        """Another text; the one before goes on so long. Raises `ResourceNotFound`, `Conflict`."""
        return self._transact(lambda: self._rotate(wanted, overlap_s))

    def note_used(self, used_s: Mapping[str, float]) -> None:
        """When keys were used last, by their ids."""
        rows = [{"used_id": key_id, "at_s": at_s} for key_id, at_s in used_s.items()]
        statement = update(_KEYS).where(_KEYS.c.id == bindparam("used_id"))
        self._transact(
            lambda: self._file.connection.execute(statement.values(used_s=bindparam("at_s")), rows)
        )

    def _transact(self, work: Callable[[], _T]) -> _T:
        with self._file.connection.begin():
            return work()

    def _all(self) -> tuple[StoredKey, ...]:
        rows = self._file.connection.execute(
            select(_KEYS.c.content, _KEYS.c.used_s).order_by(_KEYS.c.created_s, _KEYS.c.id)
        ).all()
        try:
            self._known = {
                row.content: self._known.get(row.content) or _DECODER.decode(row.content)
                for row in rows
            }
        except msgspec.MsgspecError as error:
            raise StoreFailed("the file of keys has a key that cannot be read") from error
        self._find_pepper(is_needed=bool(rows))
        return tuple(_used(self._known[row.content], row.used_s) for row in rows)

    def _create(self, name: str, facts: Credential, *, is_managed: bool) -> MadeKey:
        keys, now_s = self._all(), self._now()
        check_may_be_made(name, facts, keys, now_s=now_s, is_managed=is_managed)
        if len(keys) >= MOST_KEYS:
            gone = to_give_way(keys, now_s)
            self._file.connection.execute(delete(_KEYS).where(_KEYS.c.id == gone.id))
        if not self._pepper:
            self._make_pepper()
        text, version = self._drawn(number=1, now_s=now_s)
        key = StoredKey(
            id=ID_BEGINNING + secrets.token_hex(6),
            name=name,
            facts=facts,
            created_s=now_s,
            versions=(version,),
        )
        self._file.connection.execute(
            insert(_KEYS).values(id=key.id, created_s=now_s, content=_content(key))
        )
        return MadeKey(text=text, key=key)

    def _revoke(self, wanted: str) -> StoredKey:
        key = found(wanted, self._all())
        if key.revoked_s is None:
            key = structs.replace(key, revoked_s=self._now())
            self._keep(key)
        return key

    def _rotate(self, wanted: str, overlap_s: float) -> MadeKey:
        now_s, key = self._now(), found(wanted, self._all())
        check_may_be_rotated(key, now_s)
        text, version = self._drawn(number=key.versions[-1].number + 1, now_s=now_s)
        key = rotated(key, version, overlap_s=overlap_s)
        self._keep(key)
        return MadeKey(text=text, key=key)

    def _keep(self, key: StoredKey) -> None:
        self._file.connection.execute(
            update(_KEYS).where(_KEYS.c.id == key.id).values(content=_content(key))
        )

    def _drawn(self, *, number: int, now_s: float) -> tuple[str, KeyVersion]:
        text = key_text(secrets.token_bytes(RANDOM_BYTES))
        return text, KeyVersion(
            number=number,
            digest=keyed_digest_of(text, self._pepper),
            prefix=text[:SHOWN_CHARS],
            created_s=now_s,
        )

    def _find_pepper(self, *, is_needed: bool) -> None:
        """Read it where there are keys: whoever made the first has written it before. Where there
        are none somebody else may draw another."""
        path = self._pepper_path
        if path is None:
            return
        self._pepper = b""
        if not is_needed:
            return
        try:
            pepper = path.read_bytes()
        except OSError as error:
            raise StoreFailed(
                f"{path} cannot be read ({error.strerror}), and without it the keys of {FILE_NAME} "
                "are worth nothing; restore it, or move both away"
            ) from error
        if len(pepper) != PEPPER_BYTES:
            raise StoreFailed(f"{path} is broken; restore it, or move it and {FILE_NAME} away")
        self._pepper = pepper

    def _make_pepper(self) -> None:
        """Within the transaction of the first key: nobody else does."""
        pepper = secrets.token_bytes(PEPPER_BYTES)
        if (path := self._pepper_path) is not None:
            try:
                make_private(path)
                # whoever may write here must not lead us to a file of somebody else's
                descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                with open(descriptor, "wb") as file:
                    file.write(pepper)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise StoreFailed(f"{path} cannot be written ({error.strerror})") from error
        self._pepper = pepper

    def _inode_now(self) -> int:
        if self._path is None:
            return 0
        try:
            return self._path.stat().st_ino
        except OSError:
            return -1


def _used(key: StoredKey, used_s: float | None) -> StoredKey:
    return key if used_s is None else structs.replace(key, used_s=used_s)


def _content(key: StoredKey) -> bytes:
    return msgspec.json.encode(structs.replace(key, used_s=None))
