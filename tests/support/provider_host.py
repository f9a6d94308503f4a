"""A provider of identities: what it publishes, and what it says of tokens, on 127.0.0.1."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from tests.support.tokens import encoded


class ProviderHost:
    """`publish` what is at `/keys`; `said` by token is what `/introspect` answers."""

    def __init__(self) -> None:
        self.port = 0
        self.asked: list[str] = []
        """Paths, as requests began."""
        self.forms: list[tuple[Mapping[str, Any], str]] = []
        """Of introspection, with the `Authorization` beside them."""
        self.said: dict[str, Mapping[str, Any]] = {}
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.publish(b"")

    def publish(
        self, data: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        """From now on this is at `/keys`."""
        given = {"Content-Type": "application/json", **(headers or {})}
        self._answer = data, status, given

    @property
    def keys_url(self) -> str:
        """Where keys are published."""
        return f"http://127.0.0.1:{self.port}/keys"

    @property
    def introspection_url(self) -> str:
        """Where tokens are asked about."""
        return f"http://127.0.0.1:{self.port}/introspect"

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request.path)
        data, status, headers = self._answer
        if request.path == "/introspect":
            form = await request.post()
            self.forms.append((dict(form), request.headers.get("Authorization", "")))
            said = self.said.get(str(form.get("token")), {"active": False})
            data = encoded(said) if status == 200 and data == b"" else data
        await self.may_answer.wait()
        return web.Response(body=data, status=status, headers=headers)


@asynccontextmanager
async def provider_host() -> AsyncIterator[ProviderHost]:
    """One that is gone with the test."""
    host = ProviderHost()
    runner = web.ServerRunner(web.Server(host._serve), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host.port = runner.addresses[0][1]
    try:
        yield host
    finally:
        host.may_answer.set()
        await runner.cleanup()
