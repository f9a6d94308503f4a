"""Reloads the configuration when a file of it changed, or a signal asks for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from balancer.config_file.configuration import Configuration, Trigger
from balancer.config_file.files import Fingerprint
from balancer.observability.audit import Audit

log = structlog.get_logger(__name__)

_LOOKS_EVERY_S = 1.0


class ConfigReload:
    """One loop for one configuration. A file is read again once it has stayed the same from one
    look to the next, so that nobody is read in the middle of a sentence."""

    def __init__(
        self, configuration: Configuration, audit: Audit, *, interval_s: float = _LOOKS_EVERY_S
    ) -> None:
        self._configuration = configuration
        self._audit = audit
        self._interval_s = interval_s
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Reload soon, whether a file changed or not."""
        self._asked.set()

    async def run(self) -> None:
        """Look for ever; cancel to stop. One `stat` a file and look, on a thread: a disk of the
        network may hang."""
        before: dict[Path, Fingerprint] = {}
        while True:
            try:
                before = await self._look(before)
            except Exception:  # a file that we cannot read must not end the balancer
                log.exception("looking for changed settings failed")

    async def _look(self, before: dict[Path, Fingerprint]) -> dict[Path, Fingerprint]:
        """What is not yet read of what changed; `before` is that of the look before."""
        if await self._is_asked():
            await self._reload("signal")
        changed = await asyncio.to_thread(self._configuration.changed_files)
        if changed and changed == before:
            await self._reload("file")
            return {}
        return changed

    async def _reload(self, trigger: Trigger) -> None:
        done = await self._configuration.reload(trigger)
        self._audit.note(
            "config.reload",
            None,
            outcome="done" if done.succeeded else "refused",
            trigger=trigger,
            **done.facts,
        )

    async def _is_asked(self) -> bool:
        """Within the time from one look to the next."""
        try:
            async with asyncio.timeout(self._interval_s):
                await self._asked.wait()
        except TimeoutError:
            return False
        self._asked.clear()
        return True
