"""Do tenants see anything of each other? Tried out, with a text that nobody ever sent."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from balancer.terminal.doctor.canary import Canary, CannotAsk, canary_test
from balancer.terminal.doctor.client import CannotReach, Client
from balancer.terminal.doctor.findings import Finding, not_checked, ok, problem, warning
from balancer.terminal.doctor.patient import Patient

_FIVE_MINUTES_IN_DAYS = 300 / 86_400
_TWO_KEYS = "give keys of two tenants: --tenant-key KEY --tenant-key KEY"
_SET = "set cache_isolation to tenant (docs/guides/isolation.md)"


class _NoKeys(Exception):
    """There are no two tenants to try it with; the text says why."""


async def isolation(patient: Patient) -> list[Finding]:
    """What is set, and what the canary test finds."""
    if patient.refused and not patient.wishes.tenant_keys:
        return [not_checked("keys for it can be made by an admin alone", _TWO_KEYS)]
    if patient.is_open:
        is_set = patient.settings.get("cache_isolation")
        what = (
            f"nobody signs in, so callers of one address are one tenant (cache_isolation: {is_set})"
        )
        return [not_checked(what)]
    try:
        async with _two_tenants(patient) as (first, other):
            return [
                _judged(patient, await canary_test(first, other, model=await _model(first, other)))
            ]
    except _NoKeys as error:
        return [not_checked(str(error), _TWO_KEYS)]
    except (CannotAsk, CannotReach) as error:
        return [not_checked(f"the canary test could not be made: {error}")]


def _judged(patient: Patient, canary: Canary) -> Finding:
    if canary.outcome == "unknown":
        return not_checked(f"the canary test told nothing: {canary.why}")
    if canary.outcome == "apart":
        tokens = canary.own_again.cached_tokens if canary.own_again else 0
        return ok(f"{tokens} tokens that one tenant has cached were not there for another one")
    if patient.status.get("cache_isolated") is False:
        return warning(f"tenants share what agents cache, as it is set: {canary.why}", _SET)
    return problem(
        f"tenants are to be kept apart, and are not: {canary.why}",
        "are the two keys of different tenants? Else report this, and use one balancer a tenant",
    )


async def _model(first: Client, other: Client) -> str:
    """One that generates, and that both may use. Raises `CannotAsk`."""
    names, others = await _generating(first), await _generating(other)
    for name in names:
        if name in others:
            return name
    if names and others:
        raise CannotAsk("the two keys are for different models")
    raise CannotAsk("no model is served that generates text")


async def _generating(tenant: Client) -> list[str]:
    said = await tenant.get("/v1/models")
    if not said.is_well:
        raise CannotAsk(said.reason)
    rows = said.body.get("data", ())
    return [str(row["id"]) for row in rows if not row.get("embedding_dimensions")]


@asynccontextmanager
async def _two_tenants(patient: Patient) -> AsyncIterator[tuple[Client, Client]]:
    """Raises `_NoKeys`."""
    given, base = patient.wishes.tenant_keys, patient.inference.base
    if given:
        yield patient.client.at(base, given[0]), patient.client.at(base, given[1])
        return
    made: list[str] = []
    try:
        keys = [await _made_key(patient.client, made) for _ in range(2)]
        yield patient.client.at(base, keys[0]), patient.client.at(base, keys[1])
    finally:
        for key_id in made:
            await patient.client.delete(f"/keys/{key_id}")


async def _made_key(admin: Client, made: list[str]) -> str:
    """A user's key for five minutes, of a tenant that nobody else is; its id goes to `made`."""
    name = f"doctor-{secrets.token_hex(4)}"
    wanted = {
        "name": name, "role": "user", "tenant": name, "expires_in_days": _FIVE_MINUTES_IN_DAYS,
    }  # fmt: skip
    said = await admin.post("/keys", wanted)
    if said.status not in (200, 201) or not isinstance(said.body, dict):
        raise _NoKeys(f"no keys could be made for the canary test: {said.reason}")
    made.append(str(said.body["id"]))
    return str(said.body["key"])
