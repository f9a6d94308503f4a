"""Where a balancer listens: which routes each socket serves, and the sockets."""

from __future__ import annotations

import errno
import socket

from balancer.errors import AddressNotFree, SettingError
from balancer.http.exchange import Port
from balancer.settings import Address, Settings

BACKLOG = 1024
"""Connections that wait to be taken."""


def listeners(settings: Settings) -> tuple[tuple[Port, ...], ...]:
    """Which routes each socket serves; its address is that of the first."""
    if settings.single_port:
        return (("inference", "management"),)
    return (("inference",), ("management",))


def address_of_port(settings: Settings, port: Port) -> Address:
    """As it is set."""
    return settings.inference if port == "inference" else settings.management


def bound(address: Address, what: str) -> socket.socket:
    """A listening socket that streams: small writes go out at once (accepted ones inherit it).
    Raises `SettingError`."""
    try:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        listener = socket.create_server(
            (address.host, address.port), family=family, backlog=BACKLOG
        )
    except OSError as error:
        raise _not_bound(address, what, error) from error
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setblocking(False)
    return listener


def _not_bound(address: Address, what: str, error: OSError) -> SettingError:
    """What to say and whether another try may help, as where a tunnel comes up late."""
    said = f"{what}: {address} cannot be used ({error.strerror or error}); "
    other = f"choose another address with --{what} HOST:PORT"
    if error.errno == errno.EADDRINUSE:
        return AddressNotFree(f"{said}is another balancer running? Else {other}")
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return AddressNotFree(f"{said}no interface of this machine has it now. Wait, or {other}")
    if error.errno == errno.EACCES:
        return SettingError(f"{said}ports below 1024 need CAP_NET_BIND_SERVICE. Else {other}")
    return SettingError(f"{said}{other}")
