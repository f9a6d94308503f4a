"""From where an image may be fetched: which URLs, and which addresses of their hosts. Pure.

Who sends a URL chooses where this service goes, from inside of the operator's network. So a host is
asked only if the operator has listed it, on the ports that he meant, at an address that is no inner
one: a name whose owner points it at 10.0.0.1 is not called, unless 10.0.0.1 is listed as well.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from yarl import URL

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_OUTER = ipaddress.IPv6Network("2000::/3")
"""Of IPv6, all that hosts of the internet have: RFC 4291, section 2.4, and IANA's registry."""
_DEFAULT_PORTS = (80, 443)
_IPV4_BITS = 0xFFFFFFFF


class ImageHosts:
    """The hosts of a list of `NAME`, an address, or either with `:PORT`; IPv6 in brackets.

    Without a port a host is asked on 80 by http and on 443 by https.
    """

    def __init__(self, listed: Iterable[str]) -> None:
        self.list_anew(listed)

    def list_anew(self, listed: Iterable[str]) -> None:
        """Only these from now on."""
        self._listed = {_host_and_port(one) for one in listed}

    def __bool__(self) -> bool:
        return bool(self._listed)

    def allow_url(self, url: URL) -> bool:
        """Whether it may be asked for, as far as the URL tells."""
        if url.scheme not in ("http", "https") or url.user is not None or url.password is not None:
            return False
        host = _normal(url.raw_host or "")
        return self._is_listed(host, url.port, is_default=url.is_default_port())

    def allow_address(self, text: str, port: int) -> bool:
        """Whether a host that may be asked may be so at this address."""
        address = _address(text)
        if address is None:
            return False
        if self._is_listed(str(address), port, is_default=port in _DEFAULT_PORTS):
            return True
        reached = _behind(address)
        if isinstance(reached, ipaddress.IPv6Address) and reached not in _OUTER:
            return False
        return reached.is_global and not reached.is_multicast

    def _is_listed(self, host: str, port: int | None, *, is_default: bool) -> bool:
        return (host, port) in self._listed or (is_default and (host, None) in self._listed)


def _host_and_port(listed: str) -> tuple[str, int | None]:
    host, colon, port = listed.rpartition(":")
    if not colon or listed.endswith("]"):
        return _normal(listed), None
    return _normal(host), int(port)


def _normal(host: str) -> str:
    """Equal for names and addresses that mean the same."""
    address = _address(host)
    return host.lower().rstrip(".") if address is None else str(address)


def _address(text: str) -> IpAddress | None:
    try:
        return ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None


def _behind(address: IpAddress) -> IpAddress:
    """Who is reached by it: some IPv6 addresses only wrap one of IPv4."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & _IPV4_BITS)
    return address.ipv4_mapped or address.sixtofour or address
