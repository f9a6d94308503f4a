"""API keys for tests: one of each role, and their settings."""

from __future__ import annotations

from typing import Any

from balancer.access import Auth, Credential, Limits, LimitTable, digest_of

ADMIN, USER, SYSTEM, PUBLIC = "admin-key", "user-key", "system-key", "public-key"
BY_ROLE = {"admin": ADMIN, "user": USER, "system": SYSTEM, "public": PUBLIC}


def credential(key: str, **facts: Any) -> Credential:
    """What a key stands for, by its own name."""
    return Credential(**{"digest": digest_of(key), "id": key, **facts})


def auth(*more: Credential) -> Auth:
    """A key of each role, and these."""
    roles: Any = BY_ROLE.items()
    return Auth(api_keys=(*(credential(key, role=role) for role, key in roles), *more))


def bearer(key: str) -> dict[str, str]:
    """The header."""
    return {"Authorization": f"Bearer {key}"}


def unlimited() -> LimitTable:
    """Nobody is limited by role or route."""
    return LimitTable(roles={}, tiers={}, classes={}, address=Limits())
