"""Notices keys that end: those that another process revoked, and those whose time is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from balancer.errors import StoreFailed
from balancer.storage.keys_in_force import KeysInForce

log = structlog.get_logger(__name__)

INTERVAL_S = 0.3
"""What is over ends at the look after that which finds it: within a second."""
USES_INTERVAL_S = 60.0
"""How often it is written down when keys were used."""


class KeyWatch:
    """One loop for one store."""

    def __init__(
        self,
        keys: KeysInForce,
        *,
        end_what_is_over: Callable[[], None],
        take_used: Callable[[], Mapping[str, float]],
    ) -> None:
        """`end_what_is_over` closes what stands on keys that have ended; `take_used` hands over
        when keys were used since it was called last."""
        self._keys = keys
        self._end_what_is_over = end_what_is_over
        self._take_used = take_used
        self._is_failing = False

    async def run(self) -> None:
        """Look for ever; cancel to stop."""
        loop = asyncio.get_running_loop()
        next_uses_s = loop.time() + USES_INTERVAL_S
        while True:
            await asyncio.sleep(INTERVAL_S)
            try:
                await self._look()
                if loop.time() >= next_uses_s:
                    next_uses_s = loop.time() + USES_INTERVAL_S
                    await self.note_uses()
            except Exception:  # what goes wrong here must not end the balancer
                log.exception("watching keys failed")

    async def note_uses(self) -> None:
        """Write down when keys were used."""
        try:
            await self._keys.note_used(self._take_used())
        except StoreFailed as error:
            log.warning("uses of keys not written down", reason=str(error))

    async def _look(self) -> None:
        """Keys that are known stay in force where the store cannot be read. What stands on those
        that were found to have ended goes the next time: whoever ended them over a live socket has
        the answer first, and with it the key that closed the door."""
        self._end_what_is_over()
        try:
            await self._keys.look()
        except StoreFailed as error:
            if not self._is_failing:
                log.error("stored keys cannot be read", reason=str(error))
            self._is_failing = True
        else:
            if self._is_failing:
                log.info("stored keys can be read again")
            self._is_failing = False
