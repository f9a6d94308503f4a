"""Whoever a request is made for; everything counted, queued or isolated goes by the tenant."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Role = Literal["public", "user", "admin", "system"]


class Principal(Struct, frozen=True, kw_only=True):
    """Whom a request is made for and what it may do."""

    tenant: str
    role: Role


def open_mode_principal(client_address: str) -> Principal:
    """The principal of a loopback caller while no credentials are configured."""
    return Principal(tenant=client_address, role="admin")
