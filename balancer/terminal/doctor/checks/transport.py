"""Is what crosses the network encrypted, and for how long can its certificate be used?"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from balancer.terminal.doctor.client import PATIENCE_S
from balancer.terminal.doctor.findings import Finding, not_checked, ok, problem, warning
from balancer.terminal.doctor.patient import Patient, is_loopback

_DAY_S = 86_400
FEW_DAYS = 14
_RENEW = "renew the certificate"
_ENCRYPT = "set a certificate and its key, or put a proxy in front that has them"


async def transport(patient: Patient) -> list[Finding]:
    """Of each port."""
    bases = dict.fromkeys((patient.client.base, patient.inference.base))
    return [await _of(base, patient) for base in bases]


async def _of(base: str, patient: Patient) -> Finding:
    place = urlsplit(base)
    if place.scheme == "https":
        return await _certificate(base, patient.client.trust)
    if is_loopback(place.hostname or "") and not _listens_beyond(patient):
        return ok(f"{base}: not encrypted, and on loopback only")
    return warning(f"{base}: not encrypted; whoever is between can read keys and texts", _ENCRYPT)


def _listens_beyond(patient: Patient) -> bool:
    listening = [patient.settings.get(name) for name in ("inference", "management")]
    hosts = [urlsplit(f"//{one}").hostname or "" for one in listening if isinstance(one, str)]
    return any(not is_loopback(host) for host in hosts)


async def _certificate(base: str, trust: ssl.SSLContext | None) -> Finding:
    place = urlsplit(base)
    try:
        async with asyncio.timeout(PATIENCE_S):
            _, writer = await asyncio.open_connection(
                place.hostname, place.port or 443, ssl=trust or True
            )
        shown: Mapping[str, Any] = writer.get_extra_info("peercert") or {}
        version = writer.get_extra_info("ssl_object").version()
        writer.close()
    except (OSError, TimeoutError) as error:
        return not_checked(f"{base}: its certificate could not be seen: {error}")
    ends = shown.get("notAfter")
    if not isinstance(ends, str):
        return not_checked(f"{base}: {version}; the certificate was not looked at")
    days = (ssl.cert_time_to_seconds(ends) - time.time()) / _DAY_S
    if days <= 0:
        return problem(f"{base}: the certificate ended on {ends}", _RENEW)
    if days < FEW_DAYS:
        return warning(f"{base}: the certificate ends on {ends}, in {days:.0f} days", _RENEW)
    return ok(f"{base}: {version}, the certificate is good until {ends}")
