"""What the settings say of tokens of others, whoever vouches for them: which claims mean what."""

from __future__ import annotations

import re
from typing import Any, Literal

from msgspec import Struct
from yarl import URL

from balancer.access import OWN_TENANTS, ClaimRules, Tier
from balancer.config_file.sections import SectionFault, listed, within
from balancer.settings import is_loopback

TokenRole = Literal["user", "admin", "system"]
WithoutRole = Literal["user", "refuse"]
MAX_URL_CHARS = 2048
MAX_TEXT_CHARS = 255
_CLAIM = re.compile(r"[!-~]{1,255}")


class ClaimNames(Struct, frozen=True, forbid_unknown_fields=True):
    """As they are written under `claims`."""

    subject: str = "sub"
    role: str = ""
    tier: str = ""
    tenant: str = ""
    models: str = ""


class TokenFacts(Struct, forbid_unknown_fields=True):
    """As it is written of whoever vouches for tokens."""

    issuer: str = ""
    audience: str | list[str] = []
    claims: ClaimNames = ClaimNames()
    roles: dict[str, TokenRole] = {}
    tiers: dict[str, Tier] = {}
    without_role: WithoutRole = "user"
    tier: Tier | None = None
    tenant: str = ""


def allowed_of(shape: type[Struct]) -> str:
    """What may be written, in words."""
    return (
        f"allowed: {', '.join(shape.__struct_fields__)}; claims are "
        f"{', '.join(ClaimNames.__struct_fields__)}; roles are {listed(TokenRole)}; tiers are "
        f"{listed(Tier)}; without_role is {listed(WithoutRole)}"
    )


def claim_rules(given: TokenFacts) -> ClaimRules:
    """What it says. Raises `SectionFault`."""
    names = given.claims
    with within("claims"):
        _check_names(names)
    if given.roles and not names.role:
        problem = "no claim is named whose values these are"
        raise SectionFault(("roles",), problem, "write claims: {role: CLAIM}")
    if given.tiers and not names.tier:
        problem = "no claim is named whose values these are"
        raise SectionFault(("tiers",), problem, "write claims: {tier: CLAIM}")
    if given.without_role == "refuse" and not names.role:
        problem = "no claim is named that could say a role, so that nobody could come in"
        raise SectionFault(("without_role",), problem, "write claims: {role: CLAIM}")
    if given.tenant.startswith(OWN_TENANTS) or len(given.tenant) > MAX_TEXT_CHARS:
        problem = f"{given.tenant!r:.80} cannot be used"
        remedy = f"allowed: up to {MAX_TEXT_CHARS} characters, not beginning with key:, jwt: …"
        raise SectionFault(("tenant",), problem, remedy)
    return ClaimRules(
        subject=names.subject,
        role=names.role,
        tier=names.tier,
        tenant=names.tenant,
        models=names.models,
        roles=dict(given.roles),
        tiers=given.tiers,
        refuses_without_role=given.without_role == "refuse",
        default_tier=given.tier,
        default_tenant=given.tenant,
    )


def audience_of(given: TokenFacts) -> tuple[str, ...]:
    """One, or several. Raises `SectionFault`."""
    named = [given.audience] if isinstance(given.audience, str) else given.audience
    for one in (given.issuer, *named):
        if len(one) > MAX_TEXT_CHARS:
            problem = f"{one!r:.80} is too long"
            raise SectionFault((), problem, f"allowed: up to {MAX_TEXT_CHARS} characters")
    if "" in named:
        raise SectionFault(("audience",), "it is empty", "name who tokens have to be for")
    return tuple(named)


def provider_url(text: str) -> str:
    """One that secrets and keys may go over: with TLS, or on this host. Raises `SectionFault`."""
    remedy = "allowed: https://…, without a name and password; http://… on this host alone"
    try:
        url = URL(text) if len(text) <= MAX_URL_CHARS else URL()
        host = url.raw_host or ""
        is_safe = url.scheme == "https" or (url.scheme == "http" and is_loopback(host))
    except ValueError as error:
        raise SectionFault((), "this is no URL", remedy) from error
    if not (host and is_safe) or url.user is not None or url.password is not None:
        raise SectionFault((), "this URL cannot be used", remedy)
    return str(url.with_fragment(None))


def seconds_between(value: float, least: float, most: float, name: str) -> float:
    """Checked. Raises `SectionFault`."""
    if least <= value <= most:
        return value
    raise SectionFault((name,), f"{value:g} cannot be used", f"allowed: {least:g}..{most:g}")


def shown_claims(rules: ClaimRules) -> dict[str, Any]:
    """As it is written."""
    names = {
        name: value
        for name in ClaimNames.__struct_fields__
        if (value := getattr(rules, name)) and (name, value) != ("subject", "sub")
    }
    shown = {
        "claims": names,
        "roles": dict(rules.roles),
        "tiers": dict(rules.tiers),
        "without_role": "refuse" if rules.refuses_without_role else "",
        "tier": rules.default_tier,
        "tenant": rules.default_tenant,
    }
    return {name: value for name, value in shown.items() if value}


def _check_names(names: ClaimNames) -> None:
    for name in ClaimNames.__struct_fields__:
        value = getattr(names, name)
        if value and not _CLAIM.fullmatch(value):
            remedy = "write a claim's name, with dots where it leads into objects"
            raise SectionFault((name,), f"{value!r:.80} is no claim", remedy)
    if not names.subject:
        remedy = "write a claim's name, or leave it out for sub"
        raise SectionFault(("subject",), "it is empty", remedy)
