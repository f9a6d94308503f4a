"""Host and Origin checks: a web page must not reach an open service on loopback. Pure.

DNS rebinding makes a foreign name resolve to 127.0.0.1, so the name in `Host` is checked; a page's
own requests carry its `Origin`, so what changes state must come from the address it goes to. What a
page embeds carries no `Origin`, but browsers say in `Sec-Fetch-…` who asks for it, and for what.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from balancer.settings import is_loopback_name

_OWN_SITES = frozenset({"same-origin", "none"})
"""`none`: the user typed the address, or a program asks."""


def is_allowed_host(host: str, allowed: Collection[str]) -> bool:
    """Whether a `Host` header names this service; none at all (HTTP/1.0) is fine, no browser
    leaves it out."""
    if not host:
        return True
    name = _hostname(host)
    if name is None:
        return False
    if is_loopback_name(name) or name in allowed:
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def is_own_origin(origin: str, host: str, *, is_secure: bool = False) -> bool:
    """Whether an `Origin` header is the address that `Host` names; `null` is foreign, and so is a
    page without TLS where this request has it."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    schemes = {"https"} if is_secure else {"http", "https"}
    return parts.scheme in schemes and bool(host) and parts.netloc.lower() == host.lower()


def is_embedded_elsewhere(headers: Mapping[str, str]) -> bool:
    """Whether a page of another origin asks for this, other than by leading the user here: then
    the answer is its own tab's, where that page cannot read (W3C, Fetch Metadata Request Headers).
    False where a client says nothing of it."""
    if headers.get("Sec-Fetch-Site", "none") in _OWN_SITES:
        return False
    leads_here = ("navigate", "document")
    return (headers.get("Sec-Fetch-Mode"), headers.get("Sec-Fetch-Dest")) != leads_here


def _hostname(host: str) -> str | None:
    try:
        parts = urlsplit(f"//{host}")
        parts.port  # noqa: B018 (raises on a bad port)
    except ValueError:
        return None
    if parts.username is not None or parts.path:
        return None
    return (parts.hostname or "").rstrip(".") or None
