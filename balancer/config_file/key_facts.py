"""What may be said of a key, wherever it is written: role, tier, models, networks, limits, end."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any

from msgspec import Struct

from balancer.access import NO_ALLOWANCE, Allowance, Credential, Role, RouteClass, Tier
from balancer.config_file.limits_section import allowance, shown_allowance
from balancer.config_file.sections import SectionFault, listed, shaped, within

ALLOWED_NAME = "up to 64 of letters, digits and ._@:-"
MOST_CHARS = 200
"""Of a tenant, and of each model's name."""
MOST_LISTED = 1000
"""Models, or networks, of one key."""
MOST_AGENTS = 1000
"""Names that one key may be for."""
MOST_LABELS = 64
MOST_LABEL_CHARS = 128
_AGENTS = re.compile(r"[A-Za-z0-9._:*?-]{1,128}")
_LATEST_S = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
"""What is later is in no calendar in every time zone."""
_NAME = re.compile(r"[A-Za-z0-9._@:-]{1,64}")


class KeyFacts(Struct, forbid_unknown_fields=True):
    """As it is written."""

    name: str | None = None
    role: Role = "user"
    tier: Tier | None = None
    tenant: str = ""
    models: list[str] = []
    routes: list[RouteClass] = []
    networks: list[str] = []
    agents: list[str] = []
    labels: dict[str, str] = {}
    limits: Any = None
    expires: str | None = None


def key_facts(raw: Mapping[str, Any], *, default_name: str = "") -> Credential:
    """A credential without a digest, whose id is its name. Raises `SectionFault`."""
    return credential(shaped_facts(raw, KeyFacts), b"", default_name=default_name)


def shaped_facts(raw: Mapping[str, Any], shape: type[Any]) -> Any:
    """As this Struct. Raises `SectionFault` with all that may be written."""
    roles, tiers, classes = listed(Role), listed(Tier), listed(RouteClass)
    names = ", ".join(shape.__struct_fields__)
    return shaped(
        raw,
        shape,
        f"allowed: {names}; roles are {roles}; tiers are {tiers}; models, networks and agents are "
        f"lists, and routes one of {classes}",
    )


def credential(given: KeyFacts, digest: bytes, *, default_name: str) -> Credential:
    """What the key of this digest stands for. Raises `SectionFault`."""
    name = given.name or default_name
    if not _NAME.fullmatch(name):
        problem = f"{name!r:.80} cannot be used" if name else "there is no name"
        raise SectionFault(("name",), problem, f"allowed: {ALLOWED_NAME}")
    _check_size(given)
    with within("networks"):
        networks = _networks(given.networks)
    with within("agents"):
        agents = _agents(given.agents)
    with within("labels"):
        labels = _labels(given.labels)
    _check_for_agents(given)
    return Credential(
        digest=digest,
        id=name,
        is_named=bool(given.name),
        role=given.role,
        tier=given.tier,
        tenant=given.tenant,
        models=tuple(given.models),
        classes=_classes(given),
        networks=networks,
        agents=agents,
        labels=labels,
        allowance=_allowance(given.limits),
        expires_s=None if given.expires is None else _unix_s(given.expires),
    )


def _classes(given: KeyFacts) -> tuple[RouteClass, ...]:
    """A key for certain agents is on their hosts, and lets its finder do no more than join as
    one."""
    is_for_agents = bool(given.agents or given.labels)
    return tuple(given.routes) or (("agents",) if is_for_agents else ())


def _check_size(given: KeyFacts) -> None:
    if len(given.tenant) > MOST_CHARS:
        problem = f"it has {len(given.tenant)} characters"
        raise SectionFault(("tenant",), problem, f"allowed: at most {MOST_CHARS}")
    for name, listed_ones in (("models", given.models), ("networks", given.networks)):
        if len(listed_ones) > MOST_LISTED or any(len(one) > MOST_CHARS for one in listed_ones):
            allowed = f"allowed: at most {MOST_LISTED}, of at most {MOST_CHARS} characters each"
            raise SectionFault((name,), "these are too many or too long", allowed)


def shown_facts(one: Credential) -> dict[str, Any]:
    """Of what a key stands for, that which narrows or widens it."""
    shown = {
        "tier": one.tier,
        "tenant": one.tenant,
        "models": list(one.models),
        "routes": list(one.classes),
        "networks": list(one.networks),
        "agents": list(one.agents),
        "labels": dict(one.labels),
        "limits": shown_allowance(one.allowance),
    }
    return {name: value for name, value in shown.items() if value}


def _allowance(raw: Any) -> Allowance:
    with within("limits"):
        return NO_ALLOWANCE if raw is None else allowance(raw)


def _networks(raw: Sequence[str]) -> tuple[str, ...]:
    found: list[str] = []
    for index, one in enumerate(raw):
        try:
            found.append(str(ip_network(one)))
        except ValueError as error:
            remedy = "allowed: addresses and networks, as 10.0.0.0/8 or 2001:db8::/32"
            raise SectionFault((index,), f"{one!r:.80} is no network", remedy) from error
    return tuple(found)


def _agents(raw: Sequence[str]) -> tuple[str, ...]:
    if len(raw) > MOST_AGENTS:
        raise SectionFault((), f"there are {len(raw)} names", f"allowed: at most {MOST_AGENTS}")
    for index, one in enumerate(raw):
        if not _AGENTS.fullmatch(one):
            remedy = "allowed: names of agents, with * for any characters and ? for one"
            raise SectionFault((index,), f"{one!r:.80} is no agent's name", remedy)
    return tuple(raw)


def _labels(raw: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    for key, value in raw.items():
        if not 0 < len(key) <= MOST_LABEL_CHARS or len(value) > MOST_LABEL_CHARS:
            remedy = f"allowed: up to {MOST_LABEL_CHARS} characters each side"
            raise SectionFault((key,), "this is no label", remedy)
    if len(raw) > MOST_LABELS:
        raise SectionFault((), f"there are {len(raw)} labels", f"allowed: at most {MOST_LABELS}")
    return tuple(raw.items())


def _check_for_agents(given: KeyFacts) -> None:
    """What binds agents is of no use to a key that no agent can join with."""
    for name, value in (("agents", given.agents), ("labels", given.labels)):
        if value and given.role != "system":
            problem = f"a key of role {given.role} lets no agent join"
            raise SectionFault((name,), problem, f"write role: system, or leave {name} out")


def _unix_s(raw: str) -> float:
    found = None
    with suppress(ValueError):
        found = datetime.fromisoformat(raw)
    if found is None or found.tzinfo is None:
        remedy = "write it as 2027-01-31T12:00:00Z, with its time zone"
        raise SectionFault(("expires",), f"{raw!r:.80} is no moment", remedy)
    unix_s = found.timestamp()
    if not 0 <= unix_s < _LATEST_S:
        raise SectionFault(("expires",), f"{raw!r:.80} cannot be used", "allowed: 1970 to 9998")
    return unix_s
