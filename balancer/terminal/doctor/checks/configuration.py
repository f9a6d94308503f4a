"""The configuration: can its files be used, and is what runs what they say?"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import msgspec

from balancer.terminal.doctor.findings import (
    ONLY_ADMINS,
    Finding,
    not_checked,
    ok,
    problem,
    warning,
)
from balancer.terminal.doctor.patient import Patient

_PATIENCE_S = 30.0


async def configuration(patient: Patient) -> list[Finding]:
    """The file here as `paddler-py config check` sees it, and the balancer's own last reading."""
    return [*await _file(patient), *_running(patient)]


async def _file(patient: Patient) -> list[Finding]:
    path = patient.wishes.config or next(iter(patient.files if patient.is_here else ()), None)
    if path is None:
        return [not_checked("no configuration file is known here", "name one with --config FILE")]
    environment = patient.wishes.environment or str(patient.config.get("environment") or "")
    try:
        report = await _checked(path, environment)
    except (OSError, TimeoutError, msgspec.DecodeError) as error:
        return [not_checked(f"{path} could not be checked: {error or type(error).__name__}")]
    if report.get("valid"):
        return [ok(f"{path} can be used")]
    return [
        problem(str(fault.get("message")), str(fault.get("remedy") or ""))
        for fault in report.get("errors", ())
    ]


async def _checked(path: Path, environment: str) -> dict[str, Any]:
    """What `paddler-py config check` says, in a process of its own as anybody would call it."""
    more = ("--environment", environment) if environment else ()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "paddler_py", "config", "check", str(path), "--json", *more,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_PATIENCE_S):
            out, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    return msgspec.json.decode(out, type=dict[str, Any])


def _running(patient: Patient) -> list[Finding]:
    status = patient.status.get("status")
    if patient.refused:
        return [not_checked(ONLY_ADMINS)]
    if status == "valid":
        return [ok("the balancer could use its files when it last read them")]
    if status == "restart_needed":
        names = ", ".join(map(str, patient.status.get("restart_needed") or ()))
        return [warning(f"changes wait for a restart: {names}", "restart the balancer")]
    return [
        problem(str(fault.get("message")), str(fault.get("remedy") or ""))
        for fault in patient.status.get("validation_errors") or ()
    ]
