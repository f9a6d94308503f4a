"""The stored keys of a running balancer: read and changed on a thread, in force as one ring.

Another process, as `paddler-py keys`, may change the file: whoever calls `look` often enough
notices it in time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from msgspec import Struct

from balancer.access import Credential
from balancer.policy.identity.keyring import KeyRing
from balancer.storage.keys import MadeKey, Overview, StoredKey
from balancer.storage.one_thread import OneThread
from balancer.storage.sql_keys import SqlKeys

_T = TypeVar("_T")
_Changed = TypeVar("_Changed", MadeKey, StoredKey)
_Marks = Mapping[str, tuple[float | None, float | None]]
"""When each key was revoked and rotated, by their ids."""


class Listener(Protocol):
    """Who puts keys in force. `has_keys`: also those that have ended."""

    def __call__(self, ring: KeyRing, *, has_keys: bool) -> None: ...


class _Read(Struct, frozen=True):
    """What was read of the store."""

    seen: tuple[int, int]
    """Its version, and how often we wrote, which the version does not tell."""
    ring: KeyRing
    has_keys: bool
    elsewhere: tuple[tuple[str, str], ...]
    """What another process did, and to which key."""


class KeysInForce:
    """What takes a `with`-less `await` may be cancelled: what was begun is done all the same."""

    def __init__(self, data_dir: str, *, secret: bytes, now: Callable[[], float]) -> None:
        """`secret`: as `KeyRing` has it. Without a directory keys are in memory, and end
        with it. Raises `SettingError`."""
        self.is_kept = bool(data_dir)
        self._open = partial(SqlKeys, Path(data_dir) if data_dir else None, now=now)
        self._secret = secret
        self._thread = OneThread("keys")
        self._store: SqlKeys | None = None
        self._writes = 0
        self._seen: tuple[int, int] | None = None
        self._marks: _Marks = {}
        self._own: set[str] = set()
        """Keys that we changed since the store was read last: that is in the audit log, with who
        wanted it."""
        self._listener: Listener | None = None
        self.on_elsewhere: Callable[[str, str], None] = lambda _action, _id: None
        """Hears on the loop what another process did (`key.create`, …), and to which key."""
        # in memory there is nothing yet, and no need for a database
        self._first = self._thread.run_now(self._read_if_changed) if data_dir else None

    def listen(self, listener: Listener) -> None:
        """Have the ring put in force now, and on the loop after each change."""
        self._listener = listener
        self._hold(self._first)

    async def overview(self, shown: Callable[[Overview], _T]) -> _T:
        """What `shown` makes of all keys, on the thread. Raises `StoreFailed`, as all of these."""
        return await self._thread.run(lambda: shown(self._opened().overview()))

    async def create(self, name: str, facts: Credential, *, is_managed: bool) -> MadeKey:
        """As of the store; it is in force when this returns."""
        return await self._change(lambda keys: keys.create(name, facts, is_managed=is_managed))

    async def revoke(self, wanted: str) -> StoredKey:
        """As of the store."""
        return await self._change(lambda keys: keys.revoke(wanted))

    async def rotate(self, wanted: str, *, overlap_s: float) -> MadeKey:
        """As of the store."""
        return await self._change(lambda keys: keys.rotate(wanted, overlap_s=overlap_s))

    async def note_used(self, used_s: Mapping[str, float]) -> None:
        """When keys were used last, by their ids."""
        if used_s and self._store is not None:
            await self._thread.run(lambda: self._opened().note_used(used_s))

    async def look(self) -> None:
        """Put in force what was changed meanwhile."""
        if self._store is not None:
            self._hold(await self._thread.run(self._read_if_changed))

    async def close(self) -> None:
        """Wait for what runs, and let go of the file."""
        await self._thread.close(self._close)

    async def _change(self, change: Callable[[SqlKeys], _Changed]) -> _Changed:
        def work() -> _Changed:
            self._writes += 1
            done = change(self._opened())
            self._own.add(done.key.id if isinstance(done, MadeKey) else done.id)
            return done

        done = await self._thread.run(work)
        await self.look()
        return done

    def _hold(self, read: _Read | None) -> None:
        if read is not None and self._listener is not None:
            self._seen = read.seen
            self._listener(read.ring, has_keys=read.has_keys)
            for action, key_id in read.elsewhere:
                self.on_elsewhere(action, key_id)

    # --- on the thread ---

    def _opened(self) -> SqlKeys:
        if self._store is None:
            self._store = self._open()
        return self._store

    def _read_if_changed(self) -> _Read | None:
        store = self._opened()
        seen = (store.version(), self._writes)
        if seen == self._seen:
            return None
        found = store.overview()
        ring = KeyRing(found.credentials, self._secret, pepper=found.pepper)
        marks = {key.id: (key.revoked_s, key.rotated_s) for key in found.keys}
        changes = () if self._seen is None else _changes(self._marks, marks)
        elsewhere = tuple(change for change in changes if change[1] not in self._own)
        self._marks = marks
        self._own.clear()
        return _Read(seen, ring, bool(found.keys), elsewhere)

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()


def _changes(before: _Marks, after: _Marks) -> Iterator[tuple[str, str]]:
    for key_id, mark in after.items():
        known = before.get(key_id)
        if known is None:
            yield "key.create", key_id
        elif known[0] != mark[0]:
            yield "key.revoke", key_id
        elif known[1] != mark[1]:
            yield "key.rotate", key_id
