"""`paddler-py doctor`: what is wrong with a balancer, its agents and this host, and what to do."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
import sys
from pathlib import Path

import aiohttp
import click

from balancer.terminal.api_key import key_file_option, key_of
from balancer.terminal.doctor.client import CannotReach, Client
from balancer.terminal.doctor.findings import problem
from balancer.terminal.doctor.patient import Patient, Wishes, examined
from balancer.terminal.doctor.report import Line, Section, as_json, is_well, lines, printable
from balancer.terminal.doctor.table import CHECKS, Check
from balancer.terminal.trust import ca_file_option, trust_of

_EXIT_PROBLEMS, _EXIT_UNREACHED = 1, 2
_LONGEST_CHECK_S = 300.0
_NO_SENSE = (AttributeError, LookupError, TypeError, ValueError)
"""What follows from an answer of another shape than any balancer's."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--url",
    default="http://127.0.0.1:8081",
    show_default=True,
    help="The balancer's management port.",
)
@click.option(
    "--key", envvar="PADDLER_API_KEY", default="", help="An admin's key; better in a file."
)
@click.option("--inference-url", default="", metavar="URL", help="Its inference port.")
@key_file_option
@ca_file_option
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar="PADDLER_CONFIG",
    help="A paddler.yaml here.",
)
@click.option("--environment", default="", metavar="NAME", help="Its overlay.")
@click.option(
    "--tenant-key",
    "tenant_keys",
    multiple=True,
    metavar="KEY",
    help="Of two tenants (twice), to try whether they see each other; else two are made.",
)
@click.option("--json", "wants_json", is_flag=True, help="Print one object.")
def doctor(
    *,
    url: str,
    inference_url: str,
    key: str,
    key_file: Path | None,
    ca_file: str | None,
    config: Path | None,
    environment: str,
    tenant_keys: tuple[str, ...],
    wants_json: bool,
) -> None:
    """Look for what is wrong, and say what to do about it.

    Exit codes: 0 nothing is wrong, 1 there are problems, 2 the balancer cannot be reached.
    """
    if tenant_keys and len(tenant_keys) != 2:
        raise click.UsageError("--tenant-key goes with two keys, of two tenants")
    if any("@" in address for address in (url, inference_url)):
        raise click.UsageError("an address with credentials is shown: give keys by --key-file")
    base = _base(url)
    wishes = Wishes(
        inference=_base(inference_url) if inference_url else "",
        config=config,
        environment=environment,
        tenant_keys=tenant_keys,
    )
    try:
        sections = asyncio.run(diagnosis(base, key_of(key_file, key), _trust(ca_file), wishes))
    except CannotReach as error:
        click.echo(f"paddler-py doctor: {base}: {printable(str(error))}", err=True)
        sys.exit(_EXIT_UNREACHED)
    if wants_json:
        click.echo(json.dumps(as_json(base, sections), indent=2))
    else:
        _print(sections)
    sys.exit(0 if is_well(sections) else _EXIT_PROBLEMS)


async def diagnosis(base: str, key: str, trust: ssl.SSLContext, wishes: Wishes) -> list[Section]:
    """What all checks find. Raises `CannotReach`."""
    connector = aiohttp.TCPConnector(ssl=trust)
    agent = {"User-Agent": "paddler-py-doctor"}
    async with aiohttp.ClientSession(connector=connector, headers=agent) as session:
        patient = await examined(Client(session, base, key, trust), session, wishes)
        return [await _section(check, patient) for check in CHECKS]


async def _section(check: Check, patient: Patient) -> Section:
    try:
        async with asyncio.timeout(_LONGEST_CHECK_S):
            found = await check.run(patient)
    except (CannotReach, TimeoutError) as error:
        why = f"the balancer did not answer: {error or type(error).__name__}"
        found = [problem(why, "try again; look at the balancer's log")]
    except _NO_SENSE as error:
        why = f"what the balancer answered makes no sense ({type(error).__name__})"
        found = [problem(why, "is it another version? Is it a balancer at all?")]
    return Section(check.name, tuple(found))


def _base(url: str) -> str:
    return (url if "://" in url else f"http://{url}").rstrip("/")


def _trust(ca_file: str | None) -> ssl.SSLContext:
    try:
        return trust_of(ca_file)
    except click.ClickException as error:
        raise click.UsageError(error.message) from error


def _print(sections: list[Section]) -> None:
    is_terminal = sys.stdout.isatty()
    is_colored = is_terminal and not os.environ.get("NO_COLOR")
    width = shutil.get_terminal_size((80, 24)).columns if is_terminal else 10_000
    for line in lines(sections, width=width):
        click.echo(_styled(line) if is_colored else (line.mark + line.text).rstrip())


def _styled(line: Line) -> str:
    if not line.mark:
        return click.style(line.text, bold=True)
    return click.style(line.mark, fg=line.color or None, bold=bool(line.mark.strip())) + line.text
