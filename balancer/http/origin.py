"""Host and Origin checks: a web page must not reach an open service on loopback. Pure.

DNS rebinding makes a foreign name resolve to 127.0.0.1, so the name in `Host` is checked; a page's
own requests carry its `Origin`, so what changes state must come from the address it goes to.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

_LOOPBACK_NAMES = frozenset({"localhost", "ip6-localhost", "ip6-loopback"})


_REMEMBERED = 1024
"""Addresses that are not looked at twice: every request is asked for its client's."""


@lru_cache(_REMEMBERED)
def is_loopback(address: str) -> bool:
    """Whether an IP address or a name means this machine."""
    try:
        return ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return _is_loopback_name(address)


def is_allowed_host(host: str, allowed: Collection[str]) -> bool:
    """Whether a `Host` header names this service; none at all (HTTP/1.0) is fine, no browser
    leaves it out."""
    if not host:
        return True
    name = _hostname(host)
    if name is None:
        return False
    if _is_loopback_name(name) or name in allowed:
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def is_own_origin(origin: str, host: str) -> bool:
    """Whether an `Origin` header is the address that `Host` names; `null` is foreign."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(host) and parts.netloc.lower() == host.lower()


def _is_loopback_name(name: str) -> bool:
    return name in _LOOPBACK_NAMES or name.endswith(".localhost")


def _hostname(host: str) -> str | None:
    try:
        parts = urlsplit(f"//{host}")
        parts.port  # noqa: B018 (raises on a bad port)
    except ValueError:
        return None
    if parts.username is not None or parts.path:
        return None
    return (parts.hostname or "").rstrip(".") or None
