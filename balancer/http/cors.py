"""Which pages of other origins may use the inference API, and what their browsers are told of it
(WHATWG, Fetch, section "CORS protocol").

Cookies are never part of it: whoever calls from another origin needs a key, or a balancer at which
nobody has to sign in.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from aiohttp.web import BaseRequest, Response, StreamResponse

from balancer.http.answers import SECURITY_HEADERS
from balancer.http.exchange import Exchange, Wiring
from balancer.http.router import Route

ANY = "*"
_MAX_AGE_S = 7200
"""Browsers remember for no longer; each request is looked at all the same."""
_PREFLIGHT_HEADERS = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, DELETE",
    # `*` means all but `Authorization`: a key may stand in any header, SDKs have dozens of theirs
    "Access-Control-Allow-Headers": "*, Authorization",
    "Access-Control-Max-Age": str(_MAX_AGE_S),
}


def cors_headers(
    request: BaseRequest, allowed: Collection[str], *, is_open: bool
) -> Mapping[str, str]:
    """What an answer carries for the page that asked; nothing, where it may not or is none. Any
    page may only where somebody has to sign in: else the visitors' own balancers would be all
    pages'."""
    origin = request.headers.get("Origin")
    if origin is None:
        return {}
    is_listed = origin in allowed
    if not is_listed and (is_open or ANY not in allowed):
        return {}
    return {
        "Access-Control-Allow-Origin": origin if is_listed else ANY,
        "Access-Control-Expose-Headers": ANY,
    }


def is_preflight(request: BaseRequest) -> bool:
    """Whether a browser asks if it may ask."""
    return request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers


async def answer_preflight(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """That it may."""
    del wiring
    headers = {**SECURITY_HEADERS, **exchange.headers(), **_PREFLIGHT_HEADERS}
    return Response(status=204, headers=headers)


PREFLIGHT = Route(
    ports=("inference",),
    method="GET",
    path="preflight",
    handler=answer_preflight,
    limit_class="health",
    is_quiet=True,
)
"""The row for all of them."""
