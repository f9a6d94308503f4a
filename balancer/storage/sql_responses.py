"""Responses kept in a SQLite file, through SQLAlchemy: they outlive the balancer.

One thread owns the one connection, and locks the file against other processes. It writes ahead
(WAL) without waiting for the disk: a killed balancer loses nothing, a crash of the machine may lose
the last responses, and neither damages the file.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    Column,
    Connection,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    bindparam,
    create_engine,
    delete,
    event,
    func,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import SQLAlchemyError

from balancer.errors import SettingError, StoreFailed
from balancer.storage.responses import Bounds, Conversation, StoredResponse, followed

FILE_NAME = "responses.sqlite"
MOST_AT_ONCE = 256
"""Operations that run or wait for the thread; past it they fail at once."""
TIMEOUT_S = 5.0
"""For one of them, with its wait."""
_LOCK_TIMEOUT_S = 1.0
_PRAGMAS = ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=NORMAL")

_SCHEMA = MetaData()
_VERSION = Table("schema_version", _SCHEMA, Column("version", Integer, nullable=False))
_RESPONSES = Table(
    "responses",
    _SCHEMA,
    Column("id", String, primary_key=True),
    Column("tenant", String, nullable=False),
    Column("previous_id", String),
    Column("size_bytes", Integer, nullable=False),
    Column("used_s", Float, nullable=False),
    Column("turn", Integer, nullable=False, index=True),
)
"""`turn` grows with every use."""
_CONTENTS = Table(
    "contents",
    _SCHEMA,
    Column("id", String, primary_key=True),
    Column("input_items", LargeBinary, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
"""Apart from the responses, so that a use of one does not write its content anew."""

_STEPS: tuple[Callable[[Connection], None], ...] = (_SCHEMA.create_all,)
"""What brings a file from the version of its place in here to the next; version 0 is empty."""
VERSION = len(_STEPS)

_T = TypeVar("_T")


class SqlResponses:
    """Satisfies `ResponseStore`. The methods are called on the loop, what begins with an underscore
    and takes no loop runs on the thread."""

    def __init__(self, directory: Path, bounds: Bounds, *, now: Callable[[], float]) -> None:
        """Open the file, or make it. Raises `SettingError` where it cannot be used."""
        self._bounds = bounds
        self._now = now
        self._at_once = 0
        self._count = self._total_bytes = self._turn = 0
        self._is_counted = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="stored responses")
        try:
            self._engine, self._connection = self._thread.submit(self._open, directory).result()
        except BaseException:
            self._thread.shutdown()
            raise

    async def put(self, response: StoredResponse) -> bool:
        """Keep it, if it is not larger than the bound."""
        if not self._bounds.can_hold(response):
            return False
        await self._on_thread(lambda: self._put(response))
        return True

    async def get(self, response_id: str, tenant: str) -> StoredResponse | None:
        """One of the tenant's."""
        return await self._on_thread(lambda: self._find(response_id, tenant))

    async def conversation(self, response_id: str, tenant: str, *, max_bytes: int) -> Conversation:
        """One of the tenant's and what it continues."""
        return await self._on_thread(
            lambda: self._conversation(response_id, tenant, max_bytes=max_bytes)
        )

    async def delete(self, response_id: str, tenant: str) -> bool:
        """Forget one of the tenant's."""
        return await self._on_thread(lambda: self._delete(response_id, tenant))

    def resize(self, bounds: Bounds) -> None:
        """Keep so much, from its next use on."""
        self._bounds = bounds

    async def close(self) -> None:
        """Wait for what runs, and let go of the file."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    async def _on_thread(self, work: Callable[[], _T]) -> _T:
        """One transaction. What is given up or cancelled still comes to its end."""
        if self._at_once >= MOST_AT_ONCE:
            raise StoreFailed(f"{MOST_AT_ONCE} operations wait for the file of responses already")
        self._at_once += 1
        future = asyncio.get_running_loop().run_in_executor(self._thread, self._transact, work)
        future.add_done_callback(self._on_done)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await asyncio.shield(future)
        except TimeoutError as error:
            raise StoreFailed(f"no answer from the file of responses in {TIMEOUT_S:g} s") from error
        except SQLAlchemyError as error:
            raise StoreFailed(f"the file of responses: {_reason(error)}") from error

    def _on_done(self, future: asyncio.Future[Any]) -> None:
        self._at_once -= 1
        if not future.cancelled():
            future.exception()  # of what was given up nobody else asks

    # --- on the thread ---

    def _open(self, directory: Path) -> tuple[Engine, Connection]:
        path = directory / FILE_NAME
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # for its owner's eyes alone
        except OSError as error:
            raise SettingError(
                f"data_dir: {path} cannot be written ({error.strerror}); allowed: a directory in "
                "which the balancer may make files"
            ) from error
        try:
            with ExitStack() as undo:
                engine = _engine(path)
                undo.callback(engine.dispose)
                connection = undo.enter_context(engine.connect())
                with connection.begin():
                    _migrate(connection, path)
                undo.pop_all()
        except SQLAlchemyError as error:
            raise SettingError(
                f"data_dir: {path} cannot be used ({_reason(error)}); stop the other balancer that "
                "uses it, restore the file, or move it away to begin with an empty one"
            ) from error
        return engine, connection

    def _transact(self, work: Callable[[], _T]) -> _T:
        try:
            with self._connection.begin():
                self._make_room()
                return work()
        except BaseException:
            self._is_counted = False  # what was counted may have been rolled back
            raise

    def _put(self, response: StoredResponse) -> None:
        self._drop(response.id)
        self._turn += 1
        self._connection.execute(
            insert(_RESPONSES).values(
                id=response.id,
                tenant=response.tenant,
                previous_id=response.previous_id,
                size_bytes=response.size_bytes,
                used_s=self._now(),
                turn=self._turn,
            )
        )
        self._connection.execute(
            insert(_CONTENTS).values(
                id=response.id, input_items=response.input_items, body=response.body
            )
        )
        self._count += 1
        self._total_bytes += response.size_bytes
        self._make_room()

    def _find(self, response_id: str, tenant: str) -> StoredResponse | None:
        row = self._connection.execute(
            select(_RESPONSES.c.previous_id, _CONTENTS.c.input_items, _CONTENTS.c.body)
            .join(_CONTENTS, _CONTENTS.c.id == _RESPONSES.c.id)
            .where(_RESPONSES.c.id == response_id, _RESPONSES.c.tenant == tenant)
        ).one_or_none()
        if row is None:
            return None
        return StoredResponse(
            id=response_id,
            tenant=tenant,
            previous_id=row.previous_id,
            input_items=row.input_items,
            body=row.body,
        )

    def _conversation(self, response_id: str, tenant: str, *, max_bytes: int) -> Conversation:
        found = followed(
            lambda wanted: self._find(wanted, tenant), response_id, max_bytes=max_bytes
        )
        if found.responses:
            used = [
                {"used_id": one.id, "next": self._turn + i}
                for i, one in enumerate(found.responses, start=1)
            ]
            self._turn += len(used)
            self._connection.execute(
                update(_RESPONSES)
                .where(_RESPONSES.c.id == bindparam("used_id"))
                .values(turn=bindparam("next"), used_s=self._now()),
                used,
            )
        return found

    def _delete(self, response_id: str, tenant: str) -> bool:
        if self._find(response_id, tenant) is None:
            return False
        self._drop(response_id)
        return True

    def _drop(self, response_id: str) -> None:
        row = self._connection.execute(
            delete(_RESPONSES)
            .where(_RESPONSES.c.id == response_id)
            .returning(_RESPONSES.c.size_bytes)
        ).one_or_none()
        if row is None:
            return
        self._connection.execute(delete(_CONTENTS).where(_CONTENTS.c.id == response_id))
        self._count -= 1
        self._total_bytes -= row.size_bytes

    def _make_room(self) -> None:
        if not self._is_counted:
            self._count_all()
        while (oldest := self._oldest()) is not None and self._bounds.must_go(
            count=self._count,
            total_bytes=self._total_bytes,
            idle_s=self._now() - oldest.used_s,
        ):
            self._drop(oldest.id)

    def _oldest(self) -> Row[str, float] | None:
        return self._connection.execute(
            select(_RESPONSES.c.id, _RESPONSES.c.used_s).order_by(_RESPONSES.c.turn).limit(1)
        ).one_or_none()

    def _count_all(self) -> None:
        size_bytes = func.coalesce(func.sum(_RESPONSES.c.size_bytes), 0)
        turn = func.coalesce(func.max(_RESPONSES.c.turn), 0)
        row = self._connection.execute(select(func.count(_RESPONSES.c.id), size_bytes, turn)).one()
        self._count, self._total_bytes, self._turn = row
        self._is_counted = True

    def _close(self) -> None:
        self._connection.close()
        self._engine.dispose()


def _engine(path: Path) -> Engine:
    """Every transaction takes the write lock when it begins, and definitions of tables are part of
    it, which Python's driver does not do by itself."""
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"timeout": _LOCK_TIMEOUT_S},
        hide_parameters=True,  # an error must not hold what people wrote: it may be logged
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        del record
        connection.isolation_level = None
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _migrate(connection: Connection, path: Path) -> None:
    """Bring the file to this program's version."""
    version = _version_of(connection, path)
    if version > VERSION:
        raise SettingError(
            f"data_dir: {path} was written by a newer paddler-py (schema {version}, this one knows "
            f"{VERSION}); start that version, or choose another directory"
        )
    for step in _STEPS[version:]:
        step(connection)
    connection.execute(delete(_VERSION))
    connection.execute(insert(_VERSION).values(version=VERSION))


def _version_of(connection: Connection, path: Path) -> int:
    tables = inspect(connection).get_table_names()
    if not tables:
        return 0
    if _VERSION.name not in tables:
        raise SettingError(
            f"data_dir: {path} is a database of another program; choose another directory"
        )
    version: int = connection.execute(select(_VERSION.c.version)).scalar_one()
    return version


def _reason(error: SQLAlchemyError) -> str:
    """The driver's own words, without the statement and what was written."""
    return str(getattr(error, "orig", None) or type(error).__name__)
