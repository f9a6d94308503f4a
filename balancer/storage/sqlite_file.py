"""A SQLite file of ours, through SQLAlchemy: for its owner's eyes alone, and of this program's
version once it is open."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    MetaData,
    Table,
    create_engine,
    delete,
    event,
    insert,
    inspect,
    select,
)
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import SQLAlchemyError

from balancer.errors import SettingError

Step = Callable[[Connection], None]
"""Brings a file from the version of its place among the steps to the next; version 0 is empty."""

LOCK_TIMEOUT_S = 1.0
_VERSION = Table("schema_version", MetaData(), Column("version", Integer, nullable=False))


class SqliteFile:
    """One connection, for the thread that opened it."""

    def __init__(
        self, path: Path | None, *, pragmas: Sequence[str], steps: Sequence[Step], remedy: str
    ) -> None:
        """Open the file, or make it; None: in memory. Raises `SettingError` with the remedy."""
        if path is not None:
            _make(path)
        try:
            with ExitStack() as undo:
                self._engine = _engine(path, pragmas)
                undo.callback(self._engine.dispose)
                self.connection = undo.enter_context(self._engine.connect())
                with self.connection.begin():
                    _migrate(self.connection, path, steps)
                undo.pop_all()
        except SQLAlchemyError as error:
            raise SettingError(
                f"data_dir: {path} cannot be used ({reason(error)}); {remedy}, restore the file, "
                "or move it away to begin with an empty one"
            ) from error

    def close(self) -> None:
        """Let go of the file."""
        self.connection.close()
        self._engine.dispose()


def reason(error: SQLAlchemyError) -> str:
    """The driver's own words, without the statement and what was written."""
    return str(getattr(error, "orig", None) or type(error).__name__)


def _make(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_private(path)
    except OSError as error:
        raise SettingError(
            f"data_dir: {path} cannot be written ({error.strerror}); allowed: a directory in "
            "which the balancer may make files"
        ) from error


def make_private(path: Path) -> None:
    """An empty file for its owner's eyes alone, if there is none; it must be writable. One that
    root makes belongs to the directory's owner, as the balancer seldom runs as root."""
    try:
        new = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        os.close(os.open(path, os.O_RDWR))
        return
    try:
        if os.geteuid() == 0:
            owner = path.parent.stat()
            os.fchown(new, owner.st_uid, owner.st_gid)
    finally:
        os.close(new)


def _engine(path: Path | None, pragmas: Sequence[str]) -> Engine:
    """Every transaction takes the write lock when it begins, and definitions of tables are part of
    it, which Python's driver does not do by itself."""
    engine = create_engine(
        URL.create("sqlite", database=None if path is None else str(path)),
        connect_args={"timeout": LOCK_TIMEOUT_S},
        hide_parameters=True,  # an error must not hold what people wrote: it may be logged
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        del record
        connection.isolation_level = None
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _migrate(connection: Connection, path: Path | None, steps: Sequence[Step]) -> None:
    """Bring the file to this program's version."""
    version = _version_of(connection, path)
    if version > len(steps):
        raise SettingError(
            f"data_dir: {path} was written by a newer paddler-py (schema {version}, this one knows "
            f"{len(steps)}); start that version, or choose another directory"
        )
    _VERSION.create(connection, checkfirst=True)
    for step in steps[version:]:
        step(connection)
    connection.execute(delete(_VERSION))
    connection.execute(insert(_VERSION).values(version=len(steps)))


def _version_of(connection: Connection, path: Path | None) -> int:
    tables = inspect(connection).get_table_names()
    if not tables:
        return 0
    if _VERSION.name not in tables:
        raise SettingError(
            f"data_dir: {path} is a database of another program; choose another directory"
        )
    version: int = connection.execute(select(_VERSION.c.version)).scalar_one()
    return version
