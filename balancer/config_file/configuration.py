"""The configuration of a running balancer: what is in force, and reading it again.

A reload is applied whole or not at all: one thing that is wrong, or that needs a restart, and
everything stays as it was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import structlog
from msgspec import Struct

from balancer.config_file.faults import DEFAULT, Fault, FaultyConfiguration
from balancer.config_file.files import Fingerprint, fingerprint
from balancer.config_file.load import Loaded, Loading, Sources
from balancer.config_file.rules import RULES, written
from balancer.config_file.stored_keys import has_stored_keys
from balancer.config_file.tls_files import encryption
from balancer.config_file.together import faults_together
from balancer.settings import LiveSettings, Settings

log = structlog.get_logger(__name__)

Trigger = Literal["request", "signal", "file"]
Validity = Literal["valid", "invalid", "restart_needed"]


class Change(Struct, frozen=True, kw_only=True):
    """A setting that a reload changed, as it would be written."""

    name: str
    before: Any
    after: Any


class Reload(Struct, frozen=True, kw_only=True):
    """How an attempt ended. Without faults it was applied."""

    took_ms: float
    version: int
    """Of what is in force after it."""
    message: str
    changes: tuple[Change, ...] = ()
    faults: tuple[Fault, ...] = ()
    restart_needed: tuple[str, ...] = ()

    @property
    def succeeded(self) -> bool:
        """Whether what the sources say is now in force."""
        return not self.faults

    @property
    def facts(self) -> dict[str, Any]:
        """For a line of a log: names, and no value."""
        return {
            "changed": [change.name for change in self.changes],
            "faulty": [fault.field for fault in self.faults],
        }

    @property
    def validity(self) -> Validity:
        """Of what the sources say."""
        if self.succeeded:
            return "valid"
        return "restart_needed" if self.restart_needed else "invalid"


class _OpensTheDoor(Exception):
    def __init__(self, loaded: Loaded) -> None:
        super().__init__()
        self.fault = Fault(
            field="auth",
            problem="nobody would have to sign in any more",
            origin=loaded.origins.get("auth", DEFAULT),
            remedy="put it back, or start the balancer anew if that is what you want",
        )


class Configuration:
    """`live` has the settings. Reads files on a thread of its own; one reload at a time, and those
    who ask meanwhile share the next one."""

    def __init__(self, sources: Sources, *, now: Callable[[], float] = time.time) -> None:
        """Raises `FaultyConfiguration`. `now` gives unix seconds."""
        self._sources = sources
        self._now = now
        self._turn = asyncio.Lock()
        self._begun = self._ended = 0
        """Reloads, counted. One that was given up never ends."""
        self._thread = ThreadPoolExecutor(1, "configuration")
        started = time.perf_counter()
        loading = Loading(sources)
        self.loaded = loading.result()
        self._seen: Mapping[Path, Fingerprint] = loading.seen
        self.live = LiveSettings(self.loaded.settings)
        self.loaded_at_s = now()
        self.last = Reload(took_ms=_ms_since(started), version=1, message="loaded")
        """The last attempt; at first the start."""
        self.load_ms = self.last.took_ms
        """How long it took to read what is in force."""

    @classmethod
    def fixed(cls, settings: Settings) -> Configuration:
        """For a balancer inside another program: a reload finds nothing to change. Raises
        `FaultyConfiguration` where they are wrong together."""
        if wrong := tuple(faults_together(settings, {})):
            raise FaultyConfiguration(wrong)
        configuration = cls(Sources())
        made = encryption(settings, {}, unix_s=time.time())
        configuration._hold(Loaded(settings=settings, encryption=made))
        return configuration

    @property
    def version(self) -> int:
        """Grows with every reload that changed something."""
        return self.last.version

    def changed_files(self) -> dict[Path, Fingerprint]:
        """Those that are not as they were when they were last read, with what they are now. Asks
        the file system."""
        seen = self._seen  # another reload may put others in its place meanwhile
        now = {path: fingerprint(path) for path in seen}
        return {path: found for path, found in now.items() if found != seen[path]}

    async def reload(self, trigger: Trigger) -> Reload:
        """Read all sources again, and apply what they say if all of it can be. Who asks while that
        goes on is answered by the next reload, which all share that ask until it begins: each has
        the files as they were after it asked. Cancelling is safe."""
        asked = self._begun
        async with self._turn:
            if self._ended > asked:
                return self.last
            self._begun = number = self._begun + 1
            digest_before = self.loaded.encryption.digest
            done = await self._read_again()
            self._ended = number
        _tell(done, trigger)
        if self.loaded.encryption.digest != digest_before:
            log.info("TLS changed", **self.loaded.encryption.facts)
        if done.succeeded:
            for warning in self.loaded.warnings:
                log.warning("settings", problem=warning)
        return done

    async def _read_again(self) -> Reload:
        started = time.perf_counter()
        loading = Loading(self._sources)
        loop = asyncio.get_running_loop()
        try:
            loaded = await loop.run_in_executor(self._thread, self._result_of, loading)
        except FaultyConfiguration as error:
            done = self._refused(started, error.faults)
        except _OpensTheDoor as error:
            done = self._refused(started, (error.fault,), restart_needed=("auth",))
        else:
            done = self._applied(started, loaded)
        self._seen = loading.seen
        self.last = done
        return done

    def _result_of(self, loading: Loading) -> Loaded:
        """On the thread. Raises `FaultyConfiguration` and `_OpensTheDoor`: a file that was cut
        short, or is written at this moment, must not let everybody in."""
        loaded = loading.result()
        if self._sources == Sources():
            return self.loaded
        before, after = self.live.current, loaded.settings
        if after.auth.is_open and not before.auth.is_open and not has_stored_keys(after.data_dir):
            raise _OpensTheDoor(loaded)
        return loaded

    def _applied(self, started: float, loaded: Loaded) -> Reload:
        changes = _changes(self.live.current, loaded.settings)
        waiting = [change for change in changes if not RULES[change.name].is_live]
        if waiting:
            return self._refused(
                started,
                tuple(_needs_restart(change, loaded) for change in waiting),
                restart_needed=tuple(change.name for change in waiting),
            )
        has_new_certificate = loaded.encryption.digest != self.loaded.encryption.digest
        self._hold(loaded)
        self.load_ms = _ms_since(started)
        names = ", ".join(
            (*(change.name for change in changes), *["what TLS is made of"] * has_new_certificate)
        )
        return Reload(
            took_ms=self.load_ms,
            version=self.version + bool(names),
            message=f"changed: {names}" if names else "nothing has changed",
            changes=changes,
        )

    def _refused(
        self, started: float, faults: tuple[Fault, ...], restart_needed: tuple[str, ...] = ()
    ) -> Reload:
        """Everything stays."""
        why = (
            f"restart needed for: {', '.join(restart_needed)}"
            if restart_needed
            else "; ".join(str(fault) for fault in faults)
        )
        return Reload(
            took_ms=_ms_since(started),
            version=self.version,
            message=f"not reloaded, the settings in force stay: {why}",
            faults=faults,
            restart_needed=restart_needed,
        )

    def _hold(self, loaded: Loaded) -> None:
        has_changed = loaded.settings != self.live.current
        self.loaded = loaded
        self.loaded_at_s = self._now()
        if has_changed:
            self.live.replace(loaded.settings)


def _tell(done: Reload, trigger: Trigger) -> None:
    if done.succeeded:
        log.info(
            "settings reloaded",
            trigger=trigger,
            config_version=done.version,
            changed=[change.name for change in done.changes],
        )
    else:
        problems = [str(fault) for fault in done.faults]
        log.error("settings not reloaded", trigger=trigger, problems=problems)


def _changes(before: Settings, after: Settings) -> tuple[Change, ...]:
    return tuple(
        Change(
            name=name, before=written(getattr(before, name)), after=written(getattr(after, name))
        )
        for name in RULES
        if getattr(before, name) != getattr(after, name)
    )


def _needs_restart(change: Change, loaded: Loaded) -> Fault:
    return Fault(
        field=change.name,
        problem=f"{change.after!r} takes a restart, {change.before!r} is in force",
        origin=loaded.origins.get(change.name, DEFAULT),
        remedy="start the balancer anew, or set it back to have the rest reloaded",
    )


def _ms_since(started: float) -> float:
    return round(1000 * (time.perf_counter() - started), 3)
