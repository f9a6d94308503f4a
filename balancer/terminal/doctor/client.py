"""Asks a balancer over HTTP; what it answers is data to judge, whatever the status."""

from __future__ import annotations

import ssl
from typing import Any

import aiohttp
import msgspec
from msgspec import Struct

from balancer.terminal.trust import trouble_of

PATIENCE_S = 10.0
ANSWER_PATIENCE_S = 120.0
"""For a model's answer."""
_MAX_BYTES = 16 * 1024 * 1024
_SHOWN_CHARS = 200
CANNOT = (aiohttp.ClientError, TimeoutError, OSError)


class CannotReach(Exception):
    """Nobody answers there, or what answers is no balancer; the text says why."""


class Said(Struct, frozen=True):
    """An answer."""

    status: int
    body: Any
    """Decoded JSON; None where it is none."""
    retry_after_s: float = 0.0

    @property
    def is_well(self) -> bool:
        """Whether it is what was asked for."""
        return self.status == 200

    @property
    def reason(self) -> str:
        """Why not, in the server's words."""
        error = self.body.get("error") if isinstance(self.body, dict) else None
        if isinstance(error, dict):
            return str(error.get("message", ""))[:_SHOWN_CHARS]
        return f"HTTP status {self.status}"


class Client:
    """One balancer's port. `key` is sent as a bearer token unless a call brings another."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base: str,
        key: str = "",
        trust: ssl.SSLContext | None = None,
    ) -> None:
        """`trust`: what the session connects with, if it does by TLS."""
        self.base = base
        self.key = key
        self.trust = trust
        self._session = session

    def at(self, base: str, key: str) -> Client:
        """Another port, or another key."""
        return Client(self._session, base, key, self.trust)

    async def get(self, path: str) -> Said:
        """Raises `CannotReach`."""
        return await self._ask("GET", path, None, PATIENCE_S)

    async def post(
        self, path: str, body: dict[str, Any], *, patience_s: float = ANSWER_PATIENCE_S
    ) -> Said:
        """Raises `CannotReach`."""
        return await self._ask("POST", path, body, patience_s)

    async def delete(self, path: str) -> Said:
        """Raises `CannotReach`."""
        return await self._ask("DELETE", path, None, PATIENCE_S)

    async def _ask(
        self, method: str, path: str, body: dict[str, Any] | None, patience_s: float
    ) -> Said:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        timeout = aiohttp.ClientTimeout(total=patience_s, connect=PATIENCE_S)
        try:
            async with self._session.request(
                method,
                self.base + path,
                json=body,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
            ) as answer:
                waits_s = _seconds(answer.headers.get("Retry-After", ""))
                return Said(answer.status, _decoded(await _read(answer)), waits_s)
        except CANNOT as error:
            raise CannotReach(_words(error)) from error


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for piece in answer.content.iter_any():
        data += piece
        if len(data) > _MAX_BYTES:
            raise CannotReach(f"its answer has more than {_MAX_BYTES} bytes")
    return bytes(data)


def _words(error: Exception) -> str:
    words = trouble_of(error) or str(error).replace(" ssl:default", "")
    return words or type(error).__name__


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0.0


def _decoded(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        return None
