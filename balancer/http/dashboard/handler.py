"""GET / and GET /assets/…: the dashboard's page and its files."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping

from aiohttp.web import Response, StreamResponse

from balancer.errors import ResourceNotFound
from balancer.http.answers import SECURITY_HEADERS
from balancer.http.dashboard.assets import INDEX, Asset, are_loaded, assets, policy
from balancer.http.exchange import Exchange, Wiring

_NO_WEIGHT = re.compile(r"q=0(\.0*)?")


async def show_dashboard(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """The page; which of its views is shown stands behind the `#`, and never comes here."""
    del wiring
    return _answer(exchange, (await _files())[INDEX])


async def show_asset(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """One of its files."""
    del wiring
    name = exchange.places["path"]
    found = (await _files()).get(name)
    if found is None:
        raise ResourceNotFound(f"the dashboard has no file {name[:200]!r}")
    return _answer(exchange, found)


async def _files() -> Mapping[str, Asset]:
    """Compressing all of them takes as long as some steps of a stream: the first time, beside the
    loop."""
    return assets() if are_loaded() else await asyncio.to_thread(assets)


def _answer(exchange: Exchange, asset: Asset) -> Response:
    """The file, or 304 where the browser has it already (RFC 9110, section 13.1.2)."""
    headers = {
        **SECURITY_HEADERS,
        **exchange.headers(),
        **_headers_of_document(asset),
        "Cache-Control": asset.cache_control,
        "ETag": asset.etag,
        "Vary": "Accept-Encoding",
    }
    if _has(exchange.request.headers.get("If-None-Match", ""), asset.etag):
        return Response(status=304, headers=headers)
    headers["Content-Type"] = asset.content_type
    if not _takes_gzip(exchange.request.headers.get("Accept-Encoding", "")):
        return Response(body=asset.body, headers=headers)
    headers["Content-Encoding"] = "gzip"
    return Response(body=asset.compressed, headers=headers)


def _takes_gzip(given: str) -> bool:
    """RFC 9110, section 12.5.3: what has a weight of 0 is refused."""
    parts = [part.lower().replace(" ", "").partition(";") for part in given.split(",")]
    return any(name == "gzip" and not _NO_WEIGHT.fullmatch(weight) for name, _, weight in parts)


def _headers_of_document(asset: Asset) -> dict[str, str]:
    """What a browser heeds of what it shows as a page, and of nothing else."""
    if not asset.is_document:
        return {}
    return {
        "Content-Security-Policy": policy(),
        "Cross-Origin-Opener-Policy": "same-origin",
    }


def _has(given: str, etag: str) -> bool:
    known = {one.strip().removeprefix("W/") for one in given.split(",")}
    return etag in known or "*" in known
