"""Shapes of signing in."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from balancer.access import Role


class Login(Struct, forbid_unknown_fields=True):
    """A key of role admin or system."""

    key: str


class SessionBody(Struct, kw_only=True, omit_defaults=True):
    """Who has signed in. `csrf_token` is sent as X-CSRF-Token with every change."""

    object: str
    is_needed: bool
    """Whether keys are configured."""
    is_open: bool
    key: str | UnsetType = UNSET
    """The name of the key that was used."""
    role: Role | UnsetType = UNSET
    csrf_token: str | UnsetType = UNSET
    ends: str | UnsetType = UNSET
    """ISO 8601."""
