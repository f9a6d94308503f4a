"""What was had of the days' limits, in a SQLite file, through SQLAlchemy. A killed balancer loses
nothing that was written, a crash of the machine may lose the last of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from msgspec import structs
from sqlalchemy import Column, Integer, MetaData, String, Table, delete, func, select
from sqlalchemy.dialects.sqlite import insert

from balancer.policy.limits.day import DayCount
from balancer.policy.limits.ledger import MOST_SUBJECTS
from balancer.storage.one_thread import OneThread
from balancer.storage.sqlite_file import SqliteFile, Step

FILE_NAME = "limits.sqlite"
_PRAGMAS = ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=NORMAL")

_SCHEMA = MetaData()
_DAYS = Table(
    "days",
    _SCHEMA,
    Column("subject", String, primary_key=True),
    Column("day", Integer, nullable=False),
    Column("requests", Integer, nullable=False),
    Column("tokens", Integer, nullable=False),
)
_STEPS: tuple[Step, ...] = (_SCHEMA.create_all,)

_T = TypeVar("_T")


class SqlDays:
    """Satisfies `DayStore`. The methods are called on the loop, what begins with an underscore and
    takes no loop runs on the thread."""

    def __init__(self, directory: Path, *, most: int = MOST_SUBJECTS) -> None:
        """Open the file, or make it. Raises `SettingError` where it cannot be used."""
        self._most = most
        self._thread = OneThread("limits")
        self._file = self._thread.run_now(
            lambda: SqliteFile(
                directory / FILE_NAME,
                pragmas=_PRAGMAS,
                steps=_STEPS,
                remedy="stop the other balancer that uses it",
            )
        )

    async def load(self, from_day: int) -> list[DayCount]:
        """Those of this day and later ones; of more than fit, those who had most."""
        return await self._thread.run(lambda: self._transact(lambda: self._load(from_day)))

    async def save(self, counts: Sequence[DayCount], *, today: int) -> None:
        """Keep these in place of earlier ones of the same subjects."""
        await self._thread.run(lambda: self._transact(lambda: self._save(counts, today)))

    async def close(self) -> None:
        """Wait for what runs, and let go of the file."""
        await self._thread.close(self._file.close)

    # --- on the thread ---

    def _transact(self, work: Callable[[], _T]) -> _T:
        with self._file.connection.begin():
            return work()

    def _load(self, from_day: int) -> list[DayCount]:
        rows = self._file.connection.execute(
            select(_DAYS)
            .where(_DAYS.c.day >= from_day)
            .order_by(_DAYS.c.tokens.desc(), _DAYS.c.requests.desc())
            .limit(self._most)
        )
        return [
            DayCount(subject=row.subject, day=row.day, requests=row.requests, tokens=row.tokens)
            for row in rows
        ]

    def _save(self, counts: Sequence[DayCount], today: int) -> None:
        connection = self._file.connection
        connection.execute(delete(_DAYS).where(_DAYS.c.day < today))
        statement = insert(_DAYS)
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=[_DAYS.c.subject],
                set_={name: statement.excluded[name] for name in ("day", "requests", "tokens")},
            ),
            [structs.asdict(count) for count in counts],
        )
        self._make_room()

    def _make_room(self) -> None:
        """Who had least goes: a flood of new names must not fill the disk."""
        connection = self._file.connection
        count = connection.execute(select(func.count(_DAYS.c.subject))).scalar_one()
        if count > 2 * self._most:
            least = (
                select(_DAYS.c.subject)
                .order_by(_DAYS.c.tokens, _DAYS.c.requests)
                .limit(count - self._most)
            )
            connection.execute(delete(_DAYS).where(_DAYS.c.subject.in_(least)))
