"""Whoever a request is made for; everything counted, queued or isolated goes by the tenant."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from protocol.generation import MAX_PRIORITY

Role = Literal["public", "user", "admin", "system"]

_RANKS: dict[Role, int] = {"public": 0, "user": 1, "admin": 2, "system": 3}


class Principal(Struct, frozen=True, kw_only=True):
    """Whom a request is made for and what it may do."""

    tenant: str
    role: Role

    @property
    def highest_priority(self) -> int:
        """Of its requests. Whoever does not run the system may give way to others, and have none
        give way to them."""
        return MAX_PRIORITY if self.role in ("admin", "system") else 0


def open_mode_principal(client_address: str) -> Principal:
    """The principal of a loopback caller while no credentials are configured."""
    return Principal(tenant=client_address, role="admin")


def has_role(principal: Principal, needed: Role) -> bool:
    """Whether its role is this one or a higher one."""
    return _RANKS[principal.role] >= _RANKS[needed]
