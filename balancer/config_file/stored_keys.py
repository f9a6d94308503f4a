"""Whether keys are stored, which is whether somebody has to sign in: what settings alone do not
tell."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

KEYS_FILE = "keys.sqlite"
"""In `data_dir`."""
_LOCK_TIMEOUT_S = 1.0


def has_stored_keys(data_dir: str) -> bool:
    """Whether there is a key there, also one that has ended; not where nobody can tell."""
    path = Path(data_dir) / KEYS_FILE
    # who was killed while it wrote left what has to be undone before anybody can read
    return bool(data_dir) and any(_has_keys(path, mode) for mode in ("ro", "rw"))


def _has_keys(path: Path, mode: str) -> bool:
    try:
        if not path.is_file():
            return False
        address = f"{path.resolve().as_uri()}?mode={mode}"
        with closing(sqlite3.connect(address, timeout=_LOCK_TIMEOUT_S, uri=True)) as connection:
            return connection.execute("SELECT 1 FROM keys LIMIT 1").fetchone() is not None
    except (sqlite3.Error, OSError):
        return False
