"""Shapes of signing in."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from balancer.access import Role, RouteClass, Tier
from balancer.http.management.key_rows import KeyRow


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


class NewKey(Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What a key shall be for. `limits` are those of `auth.api_keys`; `expires` is ISO 8601 with a
    time zone."""

    name: str
    role: Role = "user"
    tier: Tier | None = None
    tenant: str = ""
    models: list[str] = []
    routes: list[RouteClass] = []
    networks: list[str] = []
    agents: list[str] = []
    labels: dict[str, str] = {}
    limits: dict[str, Any] | None = None
    expires: str | None = None
    expires_in_days: float | None = None


class Overlap(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """How long the key before goes on, in seconds; an hour without it."""

    overlap_s: float | None = None


class MadeKey(KeyRow, frozen=True, kw_only=True):
    """A key, and for this once its text."""

    key: str
    notes: list[str]


class KeyList(Struct, kw_only=True):
    """Keys, oldest first. `kept`: in memory they end with the balancer."""

    object: Literal["list"]
    data: list[KeyRow]
    has_more: bool
    kept: Literal["file", "memory"]
