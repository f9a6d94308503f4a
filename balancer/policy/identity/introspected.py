"""What a provider's word about a token is worth (RFC 7662, section 2.2). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

from msgspec import Struct

from balancer.access import Introspection
from balancer.policy.identity.claims import ClaimFault, is_for, moment_of, principal_of_claims
from balancer.policy.identity.keyring import Denied, Fault
from balancer.policy.identity.principal import Principal


class Said(Struct, frozen=True, kw_only=True):
    """Whom a token stands for, and until when that need not be asked again."""

    found: Principal | Denied
    until_s: float
    ends_s: float = inf


def judge(
    said: Mapping[str, Any], provider: Introspection, *, unix_s: float, denial_s: float
) -> Said:
    """What follows from an answer; a denial is known for `denial_s`."""
    try:
        ends_s = moment_of(said, "exp")
        fault = _fault_of(said, provider, unix_s=unix_s, ends_s=ends_s)
        found: Principal | Denied = (
            Denied(fault, kind="token")
            if fault is not None
            else principal_of_claims(said, provider.claims, "token")
        )
    except ClaimFault as error:
        found, ends_s = Denied("claim", kind="token", claim=str(error)), None
    if isinstance(found, Denied):
        return Said(found=found, until_s=unix_s + denial_s)
    ends_s = inf if ends_s is None else ends_s
    return Said(found=found, until_s=min(ends_s, unix_s + provider.keep_s), ends_s=ends_s)


def _fault_of(
    said: Mapping[str, Any], provider: Introspection, *, unix_s: float, ends_s: float | None
) -> Fault | None:
    if said["active"] is not True:
        return "inactive"
    if ends_s is not None and unix_s >= ends_s:
        return "expired"
    if provider.issuer and said.get("iss") != provider.issuer:
        return "issuer"
    if provider.audience and not is_for(said, provider.audience):
        return "audience"
    return None
