"""Whoever a request is made for; everything counted, queued or isolated goes by the tenant."""

from __future__ import annotations

from msgspec import Struct

from balancer.access import NO_ALLOWANCE, Allowance, Role, RouteClass, SignIn, Tier
from protocol.generation import MAX_PRIORITY

__all__ = ["Principal", "Role", "has_role", "may_use", "open_mode_principal", "rank_of"]

_RANKS: dict[Role, int] = {"public": 0, "user": 1, "admin": 2, "system": 3}


class Principal(Struct, frozen=True, kw_only=True, gc=False):
    """Whom a request is made for and what it may do."""

    tenant: str
    role: Role
    id: str = ""
    """Of the credential; empty: there was none."""
    key_number: int | None = None
    """Which of the keys of that id: another text is another one; None: it was no key."""
    tier: Tier | None = None
    models: tuple[str, ...] = ()
    """That it may use; none: all."""
    classes: tuple[RouteClass, ...] = ()
    """Of the routes that it may call; none: all that its role may."""
    agents: tuple[str, ...] = ()
    """Names that agents may have that join with it; none: any."""
    labels: tuple[tuple[str, str], ...] = ()
    """That agents must have that join with it."""
    allowance: Allowance = NO_ALLOWANCE
    """What is said of it alone."""
    is_unlimited: bool = False
    signed_in_by: SignIn = "none"

    @property
    def highest_priority(self) -> int:
        """Of its requests. Whoever does not run the system may give way to others, and have none
        give way to them."""
        return MAX_PRIORITY if self.role in ("admin", "system") else 0


def open_mode_principal(client_address: str) -> Principal:
    """The principal of a loopback caller while no credentials are configured."""
    return Principal(tenant=client_address, role="admin", is_unlimited=True, signed_in_by="open")


def may_use(principal: Principal, model: str | None) -> bool:
    """Whether it may use a model of this name; None: which is not known yet."""
    return not principal.models or model in principal.models


def has_role(principal: Principal, needed: Role) -> bool:
    """Whether its role is this one or a higher one."""
    return _RANKS[principal.role] >= _RANKS[needed]


def rank_of(role: Role) -> int:
    """The higher, the more it may."""
    return _RANKS[role]
