"""What each kind of value may look like. Whatever is not allowed is a ValueError, TypeError,
KeyError or OverflowError. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from math import isfinite
from typing import Any, get_args

from msgspec import Struct

from balancer.settings import Address, Secret

MAX_PATH_CHARS = 4096
MAX_SECRET_CHARS = 4096
_MAX_HOSTS = 1000
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.%]{2,45}\]")
_ORIGIN = re.compile(
    r"[a-z][a-z0-9+.-]{0,30}://(?:[a-z0-9._-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::[0-9]{1,5})?"
)
_USUAL_PORTS = {"http": "80", "https": "443"}
_ADDRESS_PATTERN = r"^([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.%]{2,45}\]):[0-9]{1,5}$"


class Kind(Struct, frozen=True):
    """A kind of value: how it is read, what is allowed in words, and as a JSON schema."""

    parse: Callable[[Any], Any]
    allowed: str
    schema: Mapping[str, Any]
    is_secret: bool = False
    """Whether no message may show what was written; it is read as a `Secret`."""


def parse_address(raw: Any) -> Address:
    """`HOST:PORT`, an IPv6 address in brackets. Raises ValueError or TypeError."""
    if isinstance(raw, Address):
        return raw
    if not isinstance(raw, str):
        raise TypeError
    host, colon, port = raw.rpartition(":")
    if not colon or not _HOST.fullmatch(host) or not port.isascii() or not port.isdecimal():
        raise ValueError
    number = int(port)
    if number > 65535:
        raise ValueError
    return Address(host.strip("[]"), number)


def _number(least: float, most: float) -> Callable[[Any], float]:
    def parse(raw: Any) -> float:
        if isinstance(raw, bool):
            raise TypeError
        value = float(raw)
        if not isfinite(value) or not least <= value <= most:
            raise ValueError
        return value

    return parse


def _whole(least: int, most: int) -> Callable[[Any], int]:
    def parse(raw: Any) -> int:
        value = int(raw) if isinstance(raw, str) else raw
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError
        return value

    return parse


def _one_of(allowed: tuple[str, ...]) -> Callable[[Any], str]:
    def parse(raw: Any) -> str:
        if raw is False:
            raw = "off"  # as YAML 1.1 reads it where there are no quotes
        if raw not in allowed:
            raise ValueError
        return str(raw)

    return parse


def _parse_switch(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    return {"true": True, "1": True, "false": False, "0": False}[_lower(raw)]


def _listed(raw: Any) -> list[str]:
    """A list in the file, commas between names in a variable; an empty text is an empty list."""
    names = raw.split(",") if isinstance(raw, str) else raw
    if raw == "":
        names = []
    if not isinstance(names, list | tuple) or len(names) > _MAX_HOSTS:
        raise TypeError
    return [_lower(name).strip() for name in names]


def _parse_hosts(raw: Any) -> tuple[str, ...]:
    hosts = tuple(name.rstrip(".") for name in _listed(raw))
    if not all(_HOST.fullmatch(host) for host in hosts):
        raise ValueError
    return hosts


def _parse_image_hosts(raw: Any) -> tuple[str, ...]:
    """As hosts, and each may have a port."""
    hosts = tuple(_listed(raw))
    for host in hosts:
        if not _HOST.fullmatch(host):
            parse_address(host)
    return hosts


def _parse_origins(raw: Any) -> tuple[str, ...]:
    """As browsers write them: a port that goes without saying is not said."""
    origins = []
    for origin in _listed(raw):
        parts = _ORIGIN.fullmatch(origin)
        if parts is None and origin != "*":
            raise ValueError
        usual_port = ":" + _USUAL_PORTS.get(origin.partition(":")[0], "?")
        origins.append(origin.removesuffix(usual_port))
    return tuple(origins)


def _parse_networks(raw: Any) -> tuple[str, ...]:
    return tuple(str(ip_network(network)) for network in _listed(raw))


def _lower(raw: Any) -> str:
    if not isinstance(raw, str):
        raise TypeError
    return raw.lower()


def _parse_path(raw: object) -> str:
    if not isinstance(raw, str) or "\0" in raw or len(raw) > MAX_PATH_CHARS:
        raise ValueError(raw)
    raw.encode()  # what is no Unicode can be neither shown nor, mostly, opened
    return raw


def _parse_secret(raw: object) -> Secret:
    if not isinstance(raw, str) or not raw.isprintable() or len(raw) > MAX_SECRET_CHARS:
        raise ValueError
    return Secret(raw)


def seconds(least: float, most: float) -> Kind:
    """A duration."""
    schema = {"type": "number", "minimum": least, "maximum": most}
    return Kind(_number(least, most), f"{least:g}..{most:g} seconds", schema)


def count(least: int, most: int) -> Kind:
    """A whole number."""
    schema = {"type": "integer", "minimum": least, "maximum": most}
    return Kind(_whole(least, most), f"a whole number {least}..{most}", schema)


def choice(literal: Any, *, any_case: bool = False) -> Kind:
    """One of a `Literal`'s names."""
    names: tuple[str, ...] = get_args(literal)
    one_of = _one_of(names)
    parse = (lambda raw: one_of(_lower(raw))) if any_case else one_of
    return Kind(parse, ", ".join(names), {"type": "string", "enum": list(names)})


def path(what: str) -> Kind:
    """A path; it need not exist."""
    return Kind(_parse_path, f"a {what}'s path", {"type": "string", "maxLength": MAX_PATH_CHARS})


def section(allowed: str) -> Kind:
    """A section; what may stand in it is read with its lines."""
    return Kind(parse_nothing, allowed, {"type": "object"})


def parse_nothing(raw: object) -> Any:
    """For what is no single value."""
    raise TypeError(raw)


def _names(parse: Callable[[Any], Any], allowed: str) -> Kind:
    items = {"type": "string", "minLength": 1}
    schema = {"type": "array", "items": items, "maxItems": _MAX_HOSTS}
    return Kind(parse, allowed, schema)


ADDRESS = Kind(
    parse_address,
    "HOST:PORT with a port 0..65535",
    {"type": "string", "pattern": _ADDRESS_PATTERN},
)
SWITCH = Kind(_parse_switch, "true or false", {"type": "boolean"})
HOSTS = _names(_parse_hosts, "a list of host names")
HOSTS_AND_PORTS = _names(
    _parse_image_hosts, "a list of host names or addresses, each may have a :PORT"
)
NETWORKS = _names(
    _parse_networks, "a list of addresses and networks, as 10.0.0.0/8 or 2001:db8::/32"
)
ORIGINS = _names(
    _parse_origins,
    "a list of origins, as https://chat.example or http://localhost:3000, without a path; or *",
)
SECRET = Kind(
    _parse_secret,
    f"up to {MAX_SECRET_CHARS} printable characters",
    {"type": "string", "maxLength": MAX_SECRET_CHARS, "writeOnly": True},
    is_secret=True,
)
