"""Ports, agents, clocks and versions, by what the balancer tells of them."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from balancer.terminal.doctor.client import CannotReach
from balancer.terminal.doctor.findings import (
    ONLY_ADMINS,
    Finding,
    not_checked,
    ok,
    problem,
    warning,
)
from balancer.terminal.doctor.patient import Patient

SMALL_SKEW_S, LARGE_SKEW_S = 2.0, 60.0
_SILENT_AFTER_BEATS = 3
_PACKAGES = ("paddler-py", "aiohttp", "msgspec", "structlog", "sqlalchemy", "uvloop")
_SET_CLOCK = "have both hosts set their clocks by NTP"


async def ports(patient: Patient) -> list[Finding]:
    """Does each port answer?"""
    found = [ok(f"the management port answers: {patient.client.base}")]
    if patient.refused:
        return [*found, not_checked(f"where the inference port is, {ONLY_ADMINS}")]
    inference = patient.inference
    try:
        said = await inference.get("/ready")
    except CannotReach as error:
        remedy = "look whether `inference` is an address that this host can reach"
        return [*found, problem(f"{inference.base} does not answer: {error}", remedy)]
    if said.status == 503:
        remedy = "look at the agents below"
        return [*found, warning(f"{inference.base} answers, and can serve nothing now", remedy)]
    return [*found, ok(f"the inference port answers: {inference.base}")]


async def agents(patient: Patient) -> list[Finding]:
    """Who is connected, and what is wrong with whom?"""
    if patient.refused:
        return [not_checked(ONLY_ADMINS)]
    if not patient.agents:
        where = f"paddler-py agent --balancer {patient.settings.get('management', 'HOST:PORT')}"
        return [problem("no agent is connected", f"start one: {where} --model FILE.gguf")]
    return [finding for row in patient.agents for finding in _agent(row)]


def _agent(row: dict[str, Any]) -> Iterator[Finding]:
    name = row.get("name")
    issues = [issue for issue in row.get("issues") or () if isinstance(issue, dict)]
    for issue in issues:
        make = problem if issue.get("severity") == "error" else warning
        yield make(
            f"{name}: {issue.get('message')}", f"issue {issue.get('code')}: the log has more"
        )
    longest_s = _SILENT_AFTER_BEATS * _number(row, "heartbeat_interval_s")
    heard_s = _number(row, "last_heard_s_ago")
    if heard_s > longest_s > 0:
        yield problem(
            f"{name} said nothing for {heard_s:.0f} s", "look at its host and the network"
        )
    elif row.get("state") == "not_ready" and not issues:
        yield warning(f"{name} serves nothing yet", "wait for its model, or look at its log")
    elif not issues:
        yield ok(f"{name}: {row.get('state')}, {_slots(row)}")


def _slots(row: dict[str, Any]) -> str:
    slots = row.get("slots") or {}
    return f"{slots.get('used')} of {slots.get('total')} slots in use"


async def clocks(patient: Patient) -> list[Finding]:
    """Do this host, the balancer and its agents have the same time? Expiries go by it."""
    ahead_s = patient.clock_ahead_s
    if ahead_s is None:
        found = [not_checked("the balancer's clock: it does not tell")]
    else:
        found = [_clock("the balancer", ahead_s, "this host's")]
    for row in patient.agents:
        skew = row.get("clock_ahead_s")
        if isinstance(skew, int | float):
            found.append(_clock(str(row.get("name")), skew, "the balancer's"))
        else:
            found.append(not_checked(f"{row.get('name')}'s clock: it is too old to tell"))
    return found


def _clock(whose: str, ahead_s: float, than: str) -> Finding:
    if abs(ahead_s) <= SMALL_SKEW_S:
        return ok(f"{whose}: as {than}, to {SMALL_SKEW_S:g} s")
    where = "ahead of" if ahead_s > 0 else "behind"
    make = problem if abs(ahead_s) > LARGE_SKEW_S else warning
    return make(f"{whose}: {abs(ahead_s):.0f} s {where} {than} clock", _SET_CLOCK)


async def versions(patient: Patient) -> list[Finding]:
    """Who runs what; agents may be newer or older than their balancer only for an upgrade."""
    here = {name: _installed(name) for name in _PACKAGES}
    told = ", ".join(f"{name} {found}" for name, found in here.items() if found)
    found = [ok(f"here: Python {platform.python_version()}, {told}")]
    if not patient.version:
        found.append(not_checked("the balancer does not tell its version"))
    elif patient.version != here["paddler-py"]:
        what = f"the balancer is {patient.version}, this program {here['paddler-py']}"
        found.append(warning(what, "use the same version of both"))
    else:
        found.append(ok(f"the balancer is {patient.version}"))
    for row in patient.agents:
        found.append(_of_agent(row, patient.version))
    kinds = sorted(
        {str(row["llama_cpp_version"]) for row in patient.agents if row.get("llama_cpp_version")}
    )
    if len(kinds) > 1:
        what = f"agents have different llama.cpp: {', '.join(kinds)}"
        found.append(warning(what, "with one version they can take over each other's states"))
    elif kinds:
        found.append(ok(f"llama.cpp of the agents: {kinds[0]}"))
    if patient.agents:
        found.append(ok("all agents speak this balancer's protocol: others are not let in"))
    return found


def _of_agent(row: dict[str, Any], balancers: str) -> Finding:
    name, its = row.get("name"), str(row.get("version") or "")
    if not (its and balancers):
        return not_checked(f"{name} does not tell its version" if not its else f"{name} is {its}")
    if _order(its) < _order(balancers):
        return warning(f"{name} is {its}, older than the balancer", "upgrade the agent")
    if _order(its) > _order(balancers):
        return warning(f"{name} is {its}, newer than the balancer", "upgrade the balancer")
    return ok(f"{name} is {its}")


def _order(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("+")[0].split(".") if part.isdecimal())


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _number(row: dict[str, Any], name: str) -> float:
    value = row.get(name)
    return value if isinstance(value, int | float) else 0.0
