"""All checks, in the order of the report. A new one is a function and a row."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from balancer.terminal.doctor.checks.configuration import configuration
from balancer.terminal.doctor.checks.credentials import credentials
from balancer.terminal.doctor.checks.files import files
from balancer.terminal.doctor.checks.fleet import agents, clocks, ports, versions
from balancer.terminal.doctor.checks.isolation import isolation
from balancer.terminal.doctor.checks.transport import transport
from balancer.terminal.doctor.findings import Finding
from balancer.terminal.doctor.patient import Patient


class Check(NamedTuple):
    """One part of the report."""

    name: str
    run: Callable[[Patient], Awaitable[list[Finding]]]


CHECKS = (
    Check("access", credentials),
    Check("configuration", configuration),
    Check("ports", ports),
    Check("agents", agents),
    Check("clocks", clocks),
    Check("TLS", transport),
    Check("isolation", isolation),
    Check("files", files),
    Check("versions", versions),
)
