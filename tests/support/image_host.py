"""A host of images, and of what is none, for tests of what is fetched from it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiohttp import web


class ImageHost:
    """Listens on a free port of 127.0.0.1; each answer is by its path. `asked` are the requests."""

    def __init__(self) -> None:
        self.asked: list[web.BaseRequest] = []
        self.files: dict[str, web.Response] = {}
        self.waiting = asyncio.Event()
        """Set when somebody waits for `/never`."""
        self.port = 0

    @property
    def name(self) -> str:
        """As it would be listed."""
        return f"127.0.0.1:{self.port}"

    def url(self, path: str, *, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def add(
        self,
        path: str,
        data: bytes = b"",
        *,
        media_type: str = "image/png",
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Have an answer; its URL."""
        given = {"Content-Type": media_type, **(headers or {})}
        self.files[path] = web.Response(body=data, status=status, headers=given)
        return self.url(path)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request)
        if request.path == "/never":
            self.waiting.set()
            await asyncio.Event().wait()
        file = self.files.get(request.path, web.Response(status=404))
        return web.Response(body=file.body, status=file.status, headers=file.headers)


@asynccontextmanager
async def image_host() -> AsyncIterator[ImageHost]:
    """A host that is gone with the test."""
    host = ImageHost()
    runner = web.ServerRunner(web.Server(host._answer), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host.port = runner.addresses[0][1]
    try:
        yield host
    finally:
        await runner.cleanup()
