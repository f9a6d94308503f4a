"""Responses kept in a SQLite file, through SQLAlchemy: they outlive the balancer.

One thread owns the one connection, and locks the file against other processes. It writes ahead
(WAL) without waiting for the disk: a killed balancer loses nothing, a crash of the machine may lose
the last responses, and neither damages the file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy import (
    Column,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)

from balancer.storage.one_thread import OneThread
from balancer.storage.responses import (
    Account,
    Bounds,
    Conversation,
    StoredResponse,
    followed,
)
from balancer.storage.sqlite_file import SqliteFile, Step

FILE_NAME = "responses.sqlite"
_PRAGMAS = ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=NORMAL")

_SCHEMA = MetaData()
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

_STEPS: tuple[Step, ...] = (_SCHEMA.create_all,)
VERSION = len(_STEPS)

_T = TypeVar("_T")


class SqlResponses:
    """Satisfies `ResponseStore`. The methods are called on the loop, what begins with an underscore
    and takes no loop runs on the thread."""

    def __init__(self, directory: Path, bounds: Bounds, *, now: Callable[[], float]) -> None:
        """Open the file, or make it. Raises `SettingError` where it cannot be used."""
        self._bounds = bounds
        self._now = now
        self._account = Account()
        self._turn = 0
        self._is_counted = False
        self._thread = OneThread("responses")
        self._file = self._thread.run_now(
            lambda: SqliteFile(
                directory / FILE_NAME,
                pragmas=_PRAGMAS,
                steps=_STEPS,
                remedy="stop the other balancer that uses it",
            )
        )
        self._connection = self._file.connection

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
        await self._thread.close(self._file.close)

    async def _on_thread(self, work: Callable[[], _T]) -> _T:
        """One transaction. What is given up or cancelled still comes to its end."""
        return await self._thread.run(lambda: self._transact(work))

    # --- on the thread ---

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
        self._account.add(response.tenant, response.size_bytes)
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
            .returning(_RESPONSES.c.tenant, _RESPONSES.c.size_bytes)
        ).one_or_none()
        if row is None:
            return
        self._connection.execute(delete(_CONTENTS).where(_CONTENTS.c.id == response_id))
        self._account.take_out(row.tenant, row.size_bytes)

    def _make_room(self) -> None:
        if not self._is_counted:
            self._count_all()
        while (oldest := self._oldest()) is not None:
            if self._now() - oldest.used_s > self._bounds.max_age_s:
                self._drop(oldest.id)
            elif (what := self._bounds.shortage(self._account.all)) is not None:
                self._drop(self._oldest_of(self._account.greediest(what)))
            else:
                return

    def _oldest(self) -> Row[str, float] | None:
        return self._connection.execute(
            select(_RESPONSES.c.id, _RESPONSES.c.used_s).order_by(_RESPONSES.c.turn).limit(1)
        ).one_or_none()

    def _oldest_of(self, tenant: str) -> str:
        found = select(_RESPONSES.c.id).where(_RESPONSES.c.tenant == tenant)
        oldest: str = self._connection.execute(
            found.order_by(_RESPONSES.c.turn).limit(1)
        ).scalar_one()
        return oldest

    def _count_all(self) -> None:
        turn = func.coalesce(func.max(_RESPONSES.c.turn), 0)
        self._turn = self._connection.execute(select(turn)).scalar_one()
        held = func.count(_RESPONSES.c.id), func.sum(_RESPONSES.c.size_bytes)
        rows = select(_RESPONSES.c.tenant, *held).group_by(_RESPONSES.c.tenant)
        self._account = Account()
        for tenant, count, size_bytes in self._connection.execute(rows):
            self._account.add(tenant, size_bytes, count=count)
        self._is_counted = True
