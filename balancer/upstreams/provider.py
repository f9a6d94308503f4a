"""Asks providers of identities: one small answer at a time, from the very URL that settings have.

Nothing leads anywhere else: no redirect is followed, no proxy of the environment is used, no cookie
is kept. What an answer says is its reader's to judge.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiohttp import (
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    ServerDisconnectedError,
    TCPConnector,
)

from balancer.errors import ProviderFailed

MAX_CONNECTIONS = 16
_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "User-Agent": "paddler-py",
}
_OK = 200


class ProviderClient:
    """Connections to them. `close` it."""

    def __init__(self) -> None:
        self._session: ClientSession | None = None

    async def get(self, url: str, *, timeout_s: float, most_bytes: int) -> bytes:
        """What is there. Raises `ProviderFailed`. Cancelling is safe."""
        return await self._ask("GET", url, timeout_s=timeout_s, most_bytes=most_bytes)

    async def post(
        self,
        url: str,
        form: Mapping[str, str],
        headers: Mapping[str, str],
        *,
        timeout_s: float,
        most_bytes: int,
    ) -> bytes:
        """What is answered to a form. Raises `ProviderFailed`. Cancelling is safe."""
        return await self._ask(
            "POST", url, form, headers, timeout_s=timeout_s, most_bytes=most_bytes
        )

    async def close(self) -> None:
        """End all connections."""
        if self._session is not None:
            await self._session.close()

    async def _ask(
        self,
        method: str,
        url: str,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float,
        most_bytes: int,
    ) -> bytes:
        async def ask() -> bytes:
            async with self._opened().request(
                method, url, data=form, headers=headers, allow_redirects=False
            ) as answer:
                return await _read(answer, most_bytes)

        try:
            async with asyncio.timeout(timeout_s):
                try:
                    return await ask()
                except ServerDisconnectedError:  # it closed what had been idle: not its last word
                    return await ask()
        except TimeoutError as error:
            raise ProviderFailed(f"it did not answer within {timeout_s:g} s") from error
        except ClientError as error:
            raise ProviderFailed(f"it could not be asked ({type(error).__name__})") from error

    def _opened(self) -> ClientSession:
        if self._session is None:
            self._session = ClientSession(
                connector=TCPConnector(limit=MAX_CONNECTIONS),
                cookie_jar=DummyCookieJar(),
                headers=_HEADERS,
                timeout=ClientTimeout(total=None),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session


async def _read(answer: ClientResponse, most_bytes: int) -> bytes:
    if answer.status != _OK:
        raise ProviderFailed(f"it answers {answer.status}")
    data = bytearray()
    while len(data) <= most_bytes and (chunk := await answer.content.readany()):
        data += chunk
    if len(data) > most_bytes:
        answer.close()
        raise ProviderFailed(f"its answer has more than {most_bytes} bytes")
    return bytes(data)
