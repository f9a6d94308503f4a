"""Is this program told anything?"""

from __future__ import annotations

from typing import Any

from balancer.terminal.doctor.findings import Finding, ok, problem, warning
from balancer.terminal.doctor.patient import Patient


async def credentials(patient: Patient) -> list[Finding]:
    """Most checks need an admin's key, and the management port."""
    refused = patient.refused
    if refused is not None:
        is_key = refused.status in (401, 403, 429)
        remedy = "give an admin's key: --key-file FILE" if is_key else "give the management port"
        return [problem(f"most cannot be checked: {refused.reason}", remedy)]
    if not patient.is_open:
        signs_in = ok("callers have to sign in, and the key given here is an admin's")
        return [signs_in, *await _agents_that_are_admins(patient)]
    if patient.settings.get("insecure"):
        what = "nobody has to sign in, and the ports may be reached from elsewhere (insecure)"
        return [warning(what, "make a key: docs/reference/access.md")]
    return [ok("nobody has to sign in: callers on the balancer's own host may do everything")]


async def _agents_that_are_admins(patient: Patient) -> list[Finding]:
    """Whose token is taken from an agent's host should be an agent, and no more."""
    configured = (patient.settings.get("auth") or {}).get("api_keys") or ()
    said = await patient.client.get("/keys")
    made = said.body["data"] if said.is_well else ()
    names = [str(key["name"]) for key in (*configured, *made) if _is_for_more_than_agents(key)]
    if not names:
        return []
    shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    return [
        warning(
            f"keys of role system that may do all that an admin may: {shown}",
            "give agents keys with --route agents (routes: [agents]), and take these away",
        )
    ]


_SHOWN = 10


def _is_for_more_than_agents(key: dict[str, Any]) -> bool:
    is_in_force = key.get("state", "active") == "active"
    return is_in_force and key.get("role") == "system" and key.get("routes") != ["agents"]
