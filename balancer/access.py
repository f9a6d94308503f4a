"""Who may do what and how much of it, as settings say it: roles, tiers, credentials, limits.

Data and its defaults. Deciding by it is `balancer.policy`'s, reading it `balancer.config_file`'s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal

from msgspec import Struct, field, structs

Role = Literal["public", "user", "admin", "system"]
Tier = Literal["free", "basic", "pro", "enterprise"]
RouteClass = Literal[
    "chat",
    "completions",
    "embeddings",
    "tokens",
    "models",
    "health",
    "metrics",
    "pages",
    "management",
    "agents",
]
"""Routes that are limited alike."""

DEFAULT_KEY_HEADER = "X-API-Key"


class Limits(Struct, frozen=True, kw_only=True):
    """What one subject may have; None: as much as it likes."""

    requests_per_minute: int | None = None
    burst: int | None = None
    """Requests that may arrive in any one second."""
    tokens_per_minute: int | None = None
    concurrent: int | None = None
    requests_per_day: int | None = None
    """Days are UTC's."""
    tokens_per_day: int | None = None

    @property
    def is_none(self) -> bool:
        """Whether nothing is limited."""
        return self == NO_LIMITS

    def over(self, other: Limits) -> Limits:
        """These, and where they say nothing the other's."""
        return Limits(
            **{
                name: theirs if mine is None else mine
                for (name, mine), theirs in zip(
                    structs.asdict(self).items(), structs.astuple(other), strict=True
                )
            }
        )


NO_LIMITS = Limits()


class Allowance(Struct, frozen=True, kw_only=True):
    """What a role, a tier or a key may have: in all, and of single classes of routes."""

    limits: Limits = NO_LIMITS
    classes: Mapping[RouteClass, Limits] = {}


NO_ALLOWANCE = Allowance()


class Credential(Struct, frozen=True, kw_only=True):
    """What a key stands for. The key itself is nowhere, only its `digest`."""

    digest: bytes
    """SHA-256 of the key."""
    id: str
    """How the log and `/keys` name it."""
    role: Role = "user"
    tier: Tier | None = None
    tenant: str = ""
    """Whose it is; empty: its own."""
    models: tuple[str, ...] = ()
    """That it may use; none: all."""
    classes: tuple[RouteClass, ...] = ()
    """Of the routes that it may call; none: all that its role may."""
    networks: tuple[str, ...] = ()
    """Where it may come from, as CIDR; none: from anywhere."""
    allowance: Allowance = NO_ALLOWANCE
    expires_s: float | None = None
    """Unix seconds."""


def digest_of(key: str) -> bytes:
    """By which a key is known once it has been read."""
    return hashlib.sha256(key.encode()).digest()


class Auth(Struct, frozen=True, kw_only=True):
    """Who has to sign in, and how."""

    api_keys: tuple[Credential, ...] = ()
    api_key_header: str = DEFAULT_KEY_HEADER
    """Where a key may stand beside `Authorization: Bearer`."""

    @property
    def is_open(self) -> bool:
        """Whether nobody has to."""
        return not self.api_keys


def _a_minute(requests: int, burst: int | None = None) -> Limits:
    return Limits(requests_per_minute=requests, burst=burst)


def _of_roles() -> dict[Role, Allowance]:
    return {
        "public": Allowance(limits=_a_minute(60)),
        "user": Allowance(limits=_a_minute(300)),
        "admin": Allowance(limits=_a_minute(1000)),
        "system": Allowance(limits=_a_minute(10_000)),
    }


def _of_tiers() -> dict[Tier, Allowance]:
    return {
        "free": Allowance(limits=Limits(requests_per_day=1000)),
        "basic": Allowance(limits=Limits(requests_per_day=10_000)),
        "pro": Allowance(limits=Limits(requests_per_day=100_000)),
        "enterprise": NO_ALLOWANCE,
    }


def _of_classes() -> dict[RouteClass, Limits]:
    return {
        "chat": _a_minute(100, 10),
        "completions": _a_minute(100, 10),
        "embeddings": _a_minute(120, 20),
        "models": _a_minute(60),
        "health": _a_minute(600, 100),
        "metrics": _a_minute(30),
        "pages": _a_minute(3000, 500),
    }


class LimitTable(Struct, frozen=True, kw_only=True):
    """What everybody may have for whom nothing narrower is said."""

    roles: Mapping[Role, Allowance] = field(default_factory=_of_roles)
    tiers: Mapping[Tier, Allowance] = field(default_factory=_of_tiers)
    classes: Mapping[RouteClass, Limits] = field(default_factory=_of_classes)
    """For whomever key, tier and role say nothing about that class."""
    address: Limits = NO_LIMITS
    """Of one client address, whoever calls from there."""
