"""Fetches images by their URLs, for requests that bring those instead of the images themselves.

Everything is bounded: how many requests are served at once and how many wait, the time and the
bytes of one request's images. Nothing of the client goes along, nothing is kept.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Collection

from aiohttp import (
    ClientConnectorDNSError,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
    ThreadedResolver,
)
from aiohttp.abc import AbstractResolver, ResolveResult
from msgspec import Struct
from yarl import URL

from balancer.errors import ImageNotFetched, QueueFull
from balancer.settings import MIB, LiveSettings
from balancer.upstreams.image_hosts import ImageHosts
from protocol.chat import MAX_MEDIA_BYTES

MAX_AT_ONCE = 16
"""Requests; more wait for their turn."""
MAX_WAITING = 64
MAX_CONNECTIONS = 32
MAX_REDIRECTS = 3
MAX_URL_CHARS = 8192
_HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "paddler-py"}
_IMAGE_TYPE = re.compile(r"image/[a-z0-9.+-]{1,64}")
_OK = 200
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class FetchedImage(Struct, frozen=True, kw_only=True):
    """A file, and what its host says that it is: `image/…`."""

    media_type: str
    data: bytes


class ImageSource:
    """The hosts that may be asked. `close` it."""

    def __init__(self, settings: LiveSettings) -> None:
        self._settings = settings
        self._hosts = ImageHosts(settings.current.image_hosts)
        settings.listen(lambda changed: self._hosts.list_anew(changed.image_hosts))
        self._turns = asyncio.Semaphore(MAX_AT_ONCE)
        self.requests = 0
        """That are served or wait."""
        self._session: ClientSession | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is any host to ask."""
        return bool(self._hosts)

    async def fetch(self, urls: Collection[str]) -> dict[str, FetchedImage]:
        """The images of one request, by their URLs: at most `MAX_MEDIA_BYTES` together.

        Raises `ImageNotFetched`, and `QueueFull` if too many requests fetch images. Cancelling is
        safe.
        """
        allowed = {url: self._allowed(url) for url in urls}
        if self.requests >= MAX_AT_ONCE + MAX_WAITING:
            raise QueueFull(
                "Too many requests wait for images of other hosts; try again, or send the images "
                "themselves as data URLs.",
                retry_after_s=1,
            )
        self.requests += 1
        timeout_s = self._settings.current.image_timeout_s
        found: dict[str, FetchedImage | ImageNotFetched] = {}
        try:
            async with asyncio.timeout(timeout_s), self._turns:
                await self._fetch_all(allowed, found)
        except TimeoutError:
            late = f"it did not come within {timeout_s:g} s"
            for url in urls:
                found.setdefault(url, ImageNotFetched(url, late))
        finally:
            self.requests -= 1
        return {url: _good(found[url]) for url in urls}

    async def close(self) -> None:
        """End all connections."""
        if self._session is not None:
            await self._session.close()

    async def _fetch_all(
        self, urls: dict[str, URL], found: dict[str, FetchedImage | ImageNotFetched]
    ) -> None:
        allowance = _Allowance(MAX_MEDIA_BYTES)

        async def fetch(name: str, url: URL) -> None:
            try:
                found[name] = await self._follow(name, url, allowance)
            except ImageNotFetched as error:
                found[name] = error

        async with asyncio.TaskGroup() as tasks:
            for name, url in urls.items():
                tasks.create_task(fetch(name, url))

    async def _follow(self, name: str, url: URL, allowance: _Allowance) -> FetchedImage:
        """`name` is the URL that the client sent."""
        host = url.raw_host
        for _ in range(MAX_REDIRECTS + 1):
            try:
                async with self._opened().get(url, allow_redirects=False) as answer:
                    if answer.status not in _REDIRECTS:
                        return await _read(name, answer, allowance)
                    url = url.join(URL(answer.headers.get("Location", "")))
            except ClientError as error:
                raise ImageNotFetched(name, _reason(error)) from error
            except ValueError as error:
                raise ImageNotFetched(name, "its host redirects to no URL") from error
            if url.raw_host != host or not self._hosts.allow_url(url):
                raise ImageNotFetched(name, "its host redirects to another one")
        raise ImageNotFetched(name, f"its host redirects more than {MAX_REDIRECTS} times")

    def _allowed(self, text: str) -> URL:
        try:
            url = URL(text) if len(text) <= MAX_URL_CHARS else URL()
        except ValueError as error:
            raise ImageNotFetched(text, "it is no URL") from error
        if not self._hosts.allow_url(url):
            raise ImageNotFetched(text, "it is of no host that this service may ask")
        return url

    def _opened(self) -> ClientSession:
        if self._session is None:
            connector = TCPConnector(
                resolver=_CheckedResolver(self._hosts),
                use_dns_cache=False,
                limit=MAX_CONNECTIONS,
                force_close=True,
            )
            self._session = ClientSession(
                connector=connector,
                cookie_jar=DummyCookieJar(),
                headers=_HEADERS,
                timeout=ClientTimeout(total=None),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session


class _Allowance:
    """Bytes that a request's images may still have."""

    def __init__(self, size_bytes: int) -> None:
        self._left = size_bytes

    def takes(self, size_bytes: int) -> bool:
        self._left -= size_bytes
        return self._left >= 0

    def has_room_for(self, size_bytes: int) -> bool:
        return size_bytes <= self._left


class _AddressNotAllowed(OSError):
    """All addresses of a host are inner ones."""


class _CheckedResolver(AbstractResolver):
    """Looks names up, and hands out what may be called: it is what the connection is made to."""

    def __init__(self, hosts: ImageHosts) -> None:
        self._hosts = hosts
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        allowed = [one for one in found if self._hosts.allow_address(one["host"], port)]
        if not allowed:
            raise _AddressNotAllowed(f"{host} has no address that may be called")
        return allowed

    async def close(self) -> None:
        await self._resolver.close()


async def _read(name: str, answer: ClientResponse, allowance: _Allowance) -> FetchedImage:
    if answer.status != _OK:
        raise ImageNotFetched(name, f"its host answers {answer.status}")
    media_type = answer.content_type.lower()
    if not _IMAGE_TYPE.fullmatch(media_type):
        raise ImageNotFetched(name, "it is no image: its Content-Type is not image/…")
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ImageNotFetched(name, "its host sends it compressed, which nobody asked for")
    chunks: list[bytes] = []
    is_good = allowance.has_room_for(answer.content_length or 0)
    while is_good and (chunk := await answer.content.readany()):
        chunks.append(chunk)
        is_good = allowance.takes(len(chunk))
    if not is_good:
        most = MAX_MEDIA_BYTES // MIB
        raise ImageNotFetched(name, f"the images of the request have more than {most} MiB")
    if not chunks:
        raise ImageNotFetched(name, "it is empty")
    return FetchedImage(media_type=media_type, data=b"".join(chunks))


def _good(found: FetchedImage | ImageNotFetched) -> FetchedImage:
    if isinstance(found, ImageNotFetched):
        raise found
    return found


def _reason(error: ClientError) -> str:
    if isinstance(error, ClientConnectorDNSError):
        if isinstance(error.os_error, _AddressNotAllowed):
            return "its host has no address that this service may call"
        return "its host is not known"
    return "its host could not be reached, or broke off"
