"""Is this program told anything?"""

from __future__ import annotations

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
        return [ok("callers have to sign in, and the key given here is an admin's")]
    if patient.settings.get("insecure"):
        what = "nobody has to sign in, and the ports may be reached from elsewhere (insecure)"
        return [warning(what, "make a key: docs/reference/access.md")]
    return [ok("nobody has to sign in: callers on the balancer's own host may do everything")]
