"""Whom the claims of a token that can be trusted stand for. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from ipaddress import ip_address
from math import isfinite
from typing import Any, Literal, cast, get_args

from balancer.access import OWN_TENANTS, ClaimRules, Role, Tier
from balancer.policy.identity.keyring import Denied
from balancer.policy.identity.principal import Principal, rank_of

MAX_TEXT_CHARS = 255
"""Of an issuer, a subject, a tenant and a model."""
MAX_MODELS = 100
_READABLE_CHARS = 40
_DIGEST_CHARS = 24
_LATEST_S = 2**53
_UNREADABLE = re.compile(r"[^A-Za-z0-9._@-]")
_BY_OWN_NAME: Mapping[str, Role] = {"user": "user", "admin": "admin", "system": "system"}

Kind = Literal["jwt", "token"]


class ClaimFault(Exception):
    """A claim is missing, or of no use; its name is the text."""


def principal_of_claims(
    claims: Mapping[str, Any], rules: ClaimRules, kind: Kind
) -> Principal | Denied:
    """Whom they stand for; `Denied` where they say too little or what cannot be."""
    try:
        return _principal_of(claims, rules, kind)
    except ClaimFault as fault:
        return Denied("claim", kind="token", claim=str(fault))


def moment_of(claims: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519, section 2), in unix seconds. Raises `ClaimFault`."""
    found = claims.get(name)
    if found is None and name not in claims:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise ClaimFault(name)
    if not (isfinite(found) and 0 <= found < _LATEST_S):
        raise ClaimFault(name)
    return float(found)


def is_for(claims: Mapping[str, Any], audience: Iterable[str]) -> bool:
    """Whether `aud` names one of these."""
    named = claims.get("aud")
    return not set(audience).isdisjoint(_texts(named, "aud") if named else ())


def claim_at(claims: Mapping[str, Any], path: str) -> Any:
    """What a claim of this name is, else what stands where its dots lead; None: nothing."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for step in path.split("."):
        if not isinstance(found, Mapping) or step not in found:
            return None
        found = found[step]
    return found


def id_of(kind: Kind, issuer: str, subject: str) -> str:
    """How counters and the log call it: so much of the subject as can be read, and which it is."""
    digest = hashlib.sha256(f"{len(issuer)} {issuer} {subject}".encode()).hexdigest()
    readable = _UNREADABLE.sub("_", subject[:_READABLE_CHARS])
    return f"{kind}:{readable}:{digest[:_DIGEST_CHARS]}"


def _principal_of(claims: Mapping[str, Any], rules: ClaimRules, kind: Kind) -> Principal | Denied:
    subject = _text(claim_at(claims, rules.subject), rules.subject)
    issuer = _text(claims["iss"], "iss") if claims.get("iss") else ""
    role = _role(claims, rules)
    if role is None:
        return Denied("role", kind="token")
    own_id = id_of(kind, issuer, subject)
    return Principal(
        tenant=_tenant(claims, rules) or own_id,
        role=role,
        id=own_id,
        tier=_tier(claims, rules),
        models=_models(claims, rules),
        signed_in_by=kind,
    )


def _role(claims: Mapping[str, Any], rules: ClaimRules) -> Role | None:
    """The highest of those that the claim's values mean."""
    found = claim_at(claims, rules.role) if rules.role else None
    values = () if found is None else _texts(found, rules.role)
    if rules.role == "scope":  # RFC 8693, section 4.2: a text of names between spaces
        values = tuple(name for value in values for name in value.split(" "))
    meant = rules.roles or _BY_OWN_NAME
    roles = [meant[value] for value in values if value in meant]
    if roles:
        return max(roles, key=rank_of)
    return None if rules.refuses_without_role else "user"


def _tier(claims: Mapping[str, Any], rules: ClaimRules) -> Tier | None:
    found = claim_at(claims, rules.tier) if rules.tier else None
    if found is None:
        return rules.default_tier
    value = _text(found, rules.tier)
    if rules.tiers:
        return rules.tiers.get(value, rules.default_tier)
    return cast(Tier, value) if value in get_args(Tier) else rules.default_tier


def _tenant(claims: Mapping[str, Any], rules: ClaimRules) -> str:
    found = claim_at(claims, rules.tenant) if rules.tenant else None
    if found is None:
        return rules.default_tenant
    value = _text(found, rules.tenant)
    if value.startswith(OWN_TENANTS) or _is_address(value):
        raise ClaimFault(rules.tenant)
    return value


def _is_address(text: str) -> bool:
    """Whoever came in without a key has its address for a tenant."""
    with suppress(ValueError):
        return bool(ip_address(text))
    return False


def _models(claims: Mapping[str, Any], rules: ClaimRules) -> tuple[str, ...]:
    found = claim_at(claims, rules.models) if rules.models else None
    if found is None:
        return ()
    names = _texts(found, rules.models)
    if not 0 < len(names) <= MAX_MODELS:  # none would mean all
        raise ClaimFault(rules.models)
    return names


def _texts(found: Any, name: str) -> tuple[str, ...]:
    """One text, or several."""
    if isinstance(found, list):
        return tuple(_text(one, name) for one in found)
    return (_text(found, name),)


def _text(found: Any, name: str) -> str:
    if isinstance(found, str) and 0 < len(found) <= MAX_TEXT_CHARS and found.isprintable():
        return found
    raise ClaimFault(name)
