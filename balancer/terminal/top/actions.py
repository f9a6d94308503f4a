"""What the operator can have the balancer do: one call of the management API each."""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import quote

import aiohttp
import msgspec
from msgspec import Struct
from yarl import URL

from balancer.terminal.top.feed import reason_of

_PATIENCE = aiohttp.ClientTimeout(total=10.0)
_LONGEST_ANSWER_BYTES = 1024 * 1024

Deed = Literal["drain", "undrain", "remove", "cancel"]

_CALLS: dict[Deed, tuple[str, str, str]] = {
    "drain": ("POST", "/agents/{}/drain", "{} is drained: it gets nothing new"),
    "undrain": ("POST", "/agents/{}/undrain", "{} is used again"),
    "remove": ("DELETE", "/agents/{}", "{} is removed; undrain lets it in again"),
    "cancel": ("DELETE", "/requests/{}", "{} is cancelled"),
}


class Action(Struct, frozen=True):
    """Something to do to an agent, or to a request."""

    deed: Deed
    target: str

    @property
    def question(self) -> str:
        """What is asked before."""
        return f"{self.deed} {self.target}?"


async def perform(session: aiohttp.ClientSession, base: str, action: Action) -> str:
    """One line of how it went. Never raises for what the balancer says or does not say."""
    method, path, done = _CALLS[action.deed]
    url = URL(base + path.format(quote(action.target, safe="")), encoded=True)
    try:
        async with session.request(method, url, timeout=_PATIENCE) as answer:
            body = await answer.content.read(_LONGEST_ANSWER_BYTES)
            if answer.status < 400:
                return done.format(action.target)
            return f"{action.deed} {action.target}: {_reason(body) or f'HTTP {answer.status}'}"
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return f"{action.deed} {action.target}: {reason_of(error)}"


def _reason(body: bytes) -> str:
    try:
        said: Any = msgspec.json.decode(body)
        return str(said["error"]["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return ""
