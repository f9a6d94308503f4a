"""Keeps a picture up to date: by the live sockets, or, where there are none, by asking each second.

A connection that is lost is tried again after a pause that grows, for ever.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable
from typing import Any, get_args

import aiohttp
import msgspec

from balancer.terminal.top.picture import (
    Kind,
    Link,
    LinkState,
    NoSuchProtocol,
    Picture,
    polled_control,
    polled_figures,
)
from balancer.terminal.trust import trouble_of

POLL_EVERY_S = 1.0
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 15.0
_CONNECT_PATIENCE_S = 5.0
_SILENCE_S = 75.0
"""Balancers say something every 30 s."""
_MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_NO_SOCKET = (400, 404, 405, 426, 501)
"""How balancers without live sockets answer a handshake."""

CANNOT = (aiohttp.ClientError, TimeoutError, OSError, NoSuchProtocol, msgspec.DecodeError)
"""What `snapshot` raises, each with words that say why."""


class Feed:
    """One balancer's. `on_change` is called after each change of the picture."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base: str,
        picture: Picture,
        *,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._session = session
        self._base = base
        self._picture = picture
        self._on_change = on_change
        self._failures = 0
        self._heard: set[Kind] = set()

    async def run(self) -> None:
        """For ever; cancel to stop."""
        while True:
            why = ""
            try:
                await self._follow_or_poll()
            except* CANNOT as errors:
                why = reason_of(errors)
            pause_s = self._pause_s()
            self._show("lost", why=why, retry_in_s=pause_s)
            await asyncio.sleep(pause_s)

    async def snapshot(self) -> None:
        """Fill the picture once. Raises an exception group of `CANNOT`."""
        try:
            async with asyncio.timeout(_CONNECT_PATIENCE_S), asyncio.TaskGroup() as tasks:
                for kind in get_args(Kind):
                    tasks.create_task(self._follow(kind, is_once=True))
        except* _NoSockets:
            await self._poll()

    async def _follow_or_poll(self) -> None:
        """Until the connection is lost. Raises an exception group of `CANNOT`."""
        self._heard.clear()
        try:
            async with asyncio.TaskGroup() as tasks:
                for kind in get_args(Kind):
                    tasks.create_task(self._follow(kind))
        except* _NoSockets:
            while True:
                await self._poll()
                await asyncio.sleep(POLL_EVERY_S)

    async def _follow(self, kind: Kind, *, is_once: bool = False) -> None:
        """One socket to its end, which is an error, too; `is_once`: until it has told something."""
        try:
            async with asyncio.timeout(_CONNECT_PATIENCE_S):
                socket = await self._session.ws_connect(
                    f"{self._base}/ws/{kind}", max_msg_size=_MAX_MESSAGE_BYTES, autoping=True
                )
        except aiohttp.WSServerHandshakeError as error:
            if error.status in _NO_SOCKET:
                raise _NoSockets from error
            raise
        async with socket:
            while True:
                await self._take(kind, socket, await socket.receive(timeout=_SILENCE_S))
                if is_once and kind in self._heard:
                    return

    async def _take(
        self, kind: Kind, socket: aiohttp.ClientWebSocketResponse, frame: aiohttp.WSMessage
    ) -> None:
        if frame.type is not aiohttp.WSMsgType.TEXT:
            raise NoSuchProtocol("the balancer closed the connection")
        message: Any = msgspec.json.decode(frame.data)
        if not self._picture.hear(kind, message, now_s=time.time()):
            await socket.send_str('{"type":"snapshot"}')
        elif message.get("type") == "ping":
            await socket.send_str('{"type":"pong"}')
        elif message.get("type") == "snapshot":
            self._heard.add(kind)
        if self._heard.issuperset(get_args(Kind)):
            self._show("live")

    async def _poll(self) -> None:
        agents, requests, health = [
            await self._get(path) for path in ("/agents", "/requests", "/health?detailed=true")
        ]
        control = polled_control(agents, requests, health, now_s=time.time())
        self._picture.ahead_s = 0.0
        self._picture.replace_all(control, polled_figures(control, health))
        self._show("polling")

    async def _get(self, path: str) -> Any:
        timeout = aiohttp.ClientTimeout(total=_CONNECT_PATIENCE_S)
        async with self._session.get(self._base + path, timeout=timeout) as answer:
            answer.raise_for_status()
            body = bytearray()
            async for piece in answer.content.iter_any():
                body += piece
                if len(body) > _MAX_MESSAGE_BYTES:
                    raise NoSuchProtocol(f"{path} is larger than any balancer's")
            return msgspec.json.decode(body)

    def _show(self, link: Link, *, why: str = "", retry_in_s: float = 0.0) -> None:
        if link != "lost":
            self._failures = 0
        self._picture.state = LinkState(link=link, why=why, retry_in_s=retry_in_s)
        self._on_change()

    def _pause_s(self) -> float:
        """Twice as long each time, and never quite the same."""
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._failures, 10))
        self._failures += 1
        return float(pause_s * random.uniform(0.75, 1.25))  # noqa: S311 (no secret: it spreads who comes back)


class _NoSockets(Exception):
    """A balancer that has none."""


_REFUSALS = {
    401: "asks for the key of an admin: --key-file FILE, or PADDLER_API_KEY",
    403: "refuses this (403): the key has to be of role admin, and the name be in allowed_hosts",
}


def has_remedy(error: BaseException) -> bool:
    """Whether `reason_of` says what to do: the place is right, and wants to be asked otherwise."""
    first = _first_of(error)
    is_refusal = isinstance(first, aiohttp.ClientResponseError) and first.status in _REFUSALS
    return is_refusal or bool(trouble_of(first))


def reason_of(error: BaseException) -> str:
    """In a few words; of a group the first one's."""
    error = _first_of(error)
    if trouble := trouble_of(error):
        return trouble
    match error:
        case aiohttp.ClientConnectorError():
            return f"cannot be reached: {os.strerror(error.errno) if error.errno else error}"
        case aiohttp.ClientResponseError() if error.status in _REFUSALS:
            return _REFUSALS[error.status]
        case aiohttp.ClientResponseError():
            return f"answered {error.status} {error.message}"
        case aiohttp.InvalidURL():
            return "is no address of http or https"
        case TimeoutError():
            return "does not answer in time"
        case msgspec.DecodeError():
            return "what it sent is no JSON"
        case _:
            return str(error) or type(error).__name__


def _first_of(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
