"""Who really calls: the peer of a connection, or the client that trusted proxies name. Pure.

`X-Forwarded-For` (its de-facto meaning; RFC 7239, section 5.2, has the same) is read from the
right: each proxy adds whom it was called by, so a hop's word counts while everybody behind it is
trusted. What stands further left anybody may have written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp.web import BaseRequest
from msgspec import Struct

from balancer.settings import LiveSettings, Settings

_MAX_HOPS = 16
"""Trusted ones in a row that are looked at."""
_MAX_HOP_CHARS = 64
"""An IPv6 address in brackets with a port has fewer."""
_REMEMBERED = 1024
_OF_PROXIES = frozenset(
    {"forwarded", "via", "x-real-ip", "x-client-ip", "cf-connecting-ip", "true-client-ip"}
)
"""What only proxies add, beside headers that begin with `X-Forwarded-`; some add one alone."""
_HOP = re.compile(
    r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+)(?::[0-9]{1,5})?|([0-9A-Fa-f:.]+)"
)
"""`[::1]`, `[::1]:80`, `1.2.3.4`, `1.2.3.4:80`, `::1`."""


class Client(Struct, frozen=True):
    """Whom a request comes from."""

    address: str
    """An IP address in its usual form; what the system calls the peer where that is none."""
    is_proxied: bool
    """Whether it came through a proxy that says so, trusted or not."""
    is_secure: bool
    """Whether the client used TLS, as far as we or a trusted proxy can know."""


class _Hop(Struct, frozen=True):
    address: str
    is_trusted: bool


class ClientAddresses:
    """Looks clients up by the proxies that are trusted now."""

    def __init__(self, live: LiveSettings) -> None:
        self._take(live.current)
        live.listen(self._take)

    def client_of(self, request: BaseRequest) -> Client:
        """Whom this request comes from."""
        headers = request.headers
        peer = self.peer(request.remote)
        is_secure = request.secure
        if not peer.is_trusted or not headers:  # what was no HTTP at all has a plain dict of none
            return Client(peer.address, _is_proxied(headers), is_secure)
        named = headers.getall("X-Forwarded-For", ())
        told = headers.getall("X-Forwarded-Proto", ())
        return Client(
            self._named(peer, named).address,
            is_proxied=_is_proxied(headers),
            is_secure=is_secure or next(_from_right(told), "").lower() in {"https", "wss"},
        )

    def peer(self, remote: str | None) -> _Hop:
        """A connection's other end."""
        remote = remote or ""
        return self._look_up(remote) or _Hop(remote, is_trusted=False)

    def _named(self, peer: _Hop, named: Sequence[str]) -> _Hop:
        """The first from the right that is not trusted, or the last that could be read."""
        found = peer
        for _, text in zip(range(_MAX_HOPS), _from_right(named), strict=False):
            hop = self._look_up(text)
            if hop is None:
                return found
            found = hop
            if not hop.is_trusted:
                return found
        return found

    def _take(self, settings: Settings) -> None:
        networks = tuple(map(ip_network, settings.trusted_proxies))
        self._remembered: Callable[[str], _Hop | None] = lru_cache(_REMEMBERED)(
            partial(_hop_in, networks)
        )

    def _look_up(self, text: str) -> _Hop | None:
        return self._remembered(text) if len(text) <= _MAX_HOP_CHARS else None


def _is_proxied(names: Iterable[str]) -> bool:
    return any(
        name in _OF_PROXIES or name.startswith("x-forwarded-") for name in map(str.lower, names)
    )


def _from_right(values: Sequence[str]) -> Iterator[str]:
    """The members of a header that may stand in several lines, the last one first."""
    for value in reversed(values):
        rest = value
        while True:
            rest, comma, member = rest.rpartition(",")
            yield member.strip()
            if not comma:
                break


def _hop_in(networks: tuple[IPv4Network | IPv6Network, ...], text: str) -> _Hop | None:
    address = _address_in(text)
    if address is None:
        return None
    return _Hop(str(address), any(address in network for network in networks))


def _address_in(text: str) -> IPv4Address | IPv6Address | None:
    """IPv4 in IPv6 is IPv4. None: this is no address, or one with a zone, which means something
    on its own host alone."""
    parts = _HOP.fullmatch(text)
    if parts is None:
        return None
    try:
        address = ip_address(next(filter(None, parts.groups())))
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return address
    return address.ipv4_mapped or address
