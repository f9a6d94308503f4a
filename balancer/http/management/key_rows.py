"""A stored key as lists show it, over HTTP and on the command line: nothing of the key but how it
begins."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from balancer.access import Role, RouteClass, Tier
from balancer.config_file.limits_section import shown_allowance
from balancer.http.iso_time import iso_time
from balancer.storage.keys import State, StoredKey


class PreviousKey(Struct, frozen=True, kw_only=True):
    """The text that another replaced, while it goes on. Times are ISO 8601."""

    prefix: str
    ends: str


class KeyRow(Struct, frozen=True, kw_only=True):
    """A key. `last_used` is right to a minute or two."""

    object: Literal["key"] = "key"
    id: str
    name: str
    prefix: str
    state: State
    role: Role
    tier: Tier | None
    tenant: str | None
    """None: it is its own."""
    models: list[str]
    routes: list[RouteClass]
    networks: list[str]
    agents: list[str]
    labels: dict[str, str]
    limits: dict[str, Any]
    created: str
    expires: str | None
    rotated: str | None
    revoked: str | None
    last_used: str | None
    previous: PreviousKey | None


def key_row(key: StoredKey, *, now_s: float, used_s: float | None = None) -> KeyRow:
    """`used_s`: when it was used, where somebody knows better than the store."""
    facts = key.facts
    return KeyRow(
        id=key.id,
        name=key.name,
        prefix=key.versions[-1].prefix,
        state=key.state(now_s),
        role=facts.role,
        tier=facts.tier,
        tenant=facts.tenant or None,
        models=list(facts.models),
        routes=list(facts.classes),
        networks=list(facts.networks),
        agents=list(facts.agents),
        labels=dict(facts.labels),
        limits=shown_allowance(facts.allowance),
        created=iso_time(key.created_s),
        expires=_time(facts.expires_s),
        rotated=_time(key.rotated_s),
        revoked=_time(key.revoked_s),
        last_used=_time(used_s or key.used_s),
        previous=_previous(key, now_s),
    )


def _previous(key: StoredKey, now_s: float) -> PreviousKey | None:
    before = key.versions[0]
    if before.ends_s is None or before.ends_s <= now_s or key.state(now_s) != "active":
        return None
    return PreviousKey(prefix=before.prefix, ends=iso_time(before.ends_s))


def _time(unix_s: float | None) -> str | None:
    return None if unix_s is None else iso_time(unix_s)
