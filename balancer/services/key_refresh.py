"""Has the keys that issuers publish fetched: at the start, every few minutes, and soon when a token
names one that nobody knows.

A provider that is slow, down or wrong is asked again later; nobody waits for it, and what was known
stays known for as long as the settings say.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog
from msgspec import Struct

from balancer.errors import ProviderFailed
from balancer.settings import LiveSettings, Settings
from balancer.signing_keys import SigningKey

log = structlog.get_logger(__name__)

LEAST_GAP_S = 5.0
"""Between two attempts at a provider, whatever tokens say."""

Keys = tuple[SigningKey, ...]


class _Turn(Struct):
    refresh_s: float
    next_s: float
    tried_s: float | None = None
    failures: int = 0


class KeyRefresh:
    """One loop for all issuers."""

    def __init__(
        self,
        live: LiveSettings,
        *,
        fetch: Callable[[str], Awaitable[Keys]],
        take: Callable[[str, Keys], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`fetch` raises `ProviderFailed`; `take` is told what is published at a URL."""
        self._fetch = fetch
        self._take = take
        self._now = now
        self._turns: dict[str, _Turn] = {}
        self._changed = asyncio.Event()
        self._follow(live.current)
        live.listen(self._follow)

    def ask(self, url: str) -> None:
        """Fetch these soon: a token names a key that is not among those that are known."""
        turn = self._turns.get(url)
        if turn is None or turn.tried_s is None:  # its turn comes anyway
            return
        soon_s = turn.tried_s + max(LEAST_GAP_S, self._pause_s(turn))
        if soon_s < turn.next_s:
            turn.next_s = soon_s
            self._changed.set()

    async def run(self) -> None:
        """Fetch for ever; cancel to stop."""
        while True:
            due = {url: turn for url, turn in self._turns.items() if turn.next_s <= self._now()}
            async with asyncio.TaskGroup() as tasks:
                for url, turn in due.items():
                    tasks.create_task(self._refresh(url, turn), name="keys of an issuer")
            await self._wait()

    async def _wait(self) -> None:
        """Until somebody's turn has come, or turns have changed."""
        next_s = min((turn.next_s for turn in self._turns.values()), default=None)
        try:
            async with asyncio.timeout(None if next_s is None else max(0, next_s - self._now())):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()

    async def _refresh(self, url: str, turn: _Turn) -> None:
        """The issuer may be gone by now: then nobody takes its keys."""
        turn.tried_s = self._now()
        try:
            keys = await self._fetch(url)
        except ProviderFailed as error:
            self._failed(url, turn, str(error))
        except Exception:  # one provider must not end the others' keys
            log.exception("fetching keys failed", url=url)
            self._failed(url, turn, "our own mistake")
        else:
            turn.failures = 0
            turn.next_s = turn.tried_s + turn.refresh_s
            self._take(url, keys)

    def _failed(self, url: str, turn: _Turn, reason: str) -> None:
        turn.failures += 1
        turn.next_s = self._now() + min(self._pause_s(turn), turn.refresh_s)
        log.warning("keys not fetched", url=url, reason=reason, failures=turn.failures)

    def _pause_s(self, turn: _Turn) -> float:
        """Twice as long after each failure, up to what is usual."""
        if not turn.failures:
            return 0.0
        return min(LEAST_GAP_S * 2.0 ** min(turn.failures - 1, 16), turn.refresh_s)

    def _follow(self, settings: Settings) -> None:
        """Issuers that are new have their keys fetched at once, others keep their turns."""
        wanted = {one.jwks_url: one.refresh_s for one in settings.auth.jwt if one.jwks_url}
        turns = {url: self._turns.get(url) for url in wanted}
        self._turns = {
            url: _Turn(wanted[url], self._now()) if turn is None else _kept(turn, wanted[url])
            for url, turn in turns.items()
        }
        self._changed.set()


def _kept(turn: _Turn, refresh_s: float) -> _Turn:
    turn.refresh_s = refresh_s
    if turn.tried_s is not None:
        turn.next_s = min(turn.next_s, turn.tried_s + refresh_s)
    return turn
