"""`paddler-py config`: looks at a configuration without starting anything."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click
from argon2 import PasswordHasher

from balancer.config_file.faults import DEFAULT, FaultyConfiguration
from balancer.config_file.json_schema import json_schema
from balancer.config_file.load import CONFIG_VARIABLE, Loaded, Sources, dotenv_beside, load
from balancer.config_file.rules import RULES, written

_SHOWN_CHARS = 60
"""Of a value in the table; `--json` has all of it."""
_EXIT_FAULTY = 2

_HELP = {"help_option_names": ["-h", "--help"]}
_as_json = click.option("--json", "as_json", is_flag=True, help="For programs.")
_environment = click.option(
    "--environment", metavar="NAME", help="Lay paddler.NAME.yaml over the file."
)


@click.group(context_settings=_HELP)
def config() -> None:
    """Look at the balancer's configuration without starting it."""


@config.command(context_settings=_HELP)
def schema() -> None:
    """Print the JSON schema of paddler.yaml, for editors and other checks."""
    click.echo(json.dumps(json_schema(), indent=2))


@config.command(context_settings=_HELP)
@click.argument("file", type=click.Path(path_type=Path), envvar=CONFIG_VARIABLE)
@_environment
@_as_json
def check(file: Path, environment: str | None, *, as_json: bool) -> None:
    """Say what is wrong with FILE and its overlay, alone: no variable is looked at. Exit code 2
    where anything is."""
    sources = Sources(config=file, environment=environment, is_alone=True)
    loaded = _loaded(sources, as_json=as_json)
    if as_json:
        click.echo(json.dumps({"valid": True, "errors": []}))
    else:
        click.echo(f"{', '.join(map(str, loaded.files))}: can be used")


@config.command("hash-password", context_settings=_HELP)
def hash_password() -> None:
    """Print the hash of a password, for `auth.basic` of the file. The password is asked for, or
    read from standard input as one line."""
    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.readline().removesuffix("\n")
    if not password:
        raise click.ClickException("there is no password; write one as a line of standard input")
    click.echo(PasswordHasher().hash(password))


@config.command(context_settings=_HELP)
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar=CONFIG_VARIABLE,
    metavar="FILE",
    help="The same, as for `paddler-py balancer`.",
)
@_environment
@_as_json
def show(file: Path | None, config: Path | None, environment: str | None, *, as_json: bool) -> None:
    """Print the settings that a balancer would have that is started here with FILE and without
    other flags, and where each comes from. GET /config tells of one that runs."""
    file = file or config
    sources = Sources(
        variables=dict(os.environ),
        config=file,
        environment=environment,
        dotenv=dotenv_beside(file),
    )
    loaded = _loaded(sources, as_json=as_json)
    rows = [_row(loaded, name) for name in RULES]
    if as_json:
        value = {"environment": loaded.environment, "settings": rows, "warnings": loaded.warnings}
        click.echo(json.dumps(value, indent=2))
        return
    names = max(len(row["name"]) for row in rows)
    values = max(len(_shown(row["value"])) for row in rows)
    for row in rows:
        click.echo(f"{row['name']:<{names}}  {_shown(row['value']):<{values}}  {row['origin']}")
    for warning in loaded.warnings:
        click.echo(f"paddler-py config: {warning}", err=True)


def _loaded(sources: Sources, *, as_json: bool) -> Loaded:
    try:
        return load(sources)
    except FaultyConfiguration as error:
        if as_json:
            errors = [
                {
                    "message": str(fault),
                    "field": fault.field,
                    "source": fault.origin.name or None,
                    "line": fault.origin.line,
                    "remedy": fault.remedy,
                }
                for fault in error.faults
            ]
            click.echo(json.dumps({"valid": False, "errors": errors}, indent=2))
        else:
            click.echo(str(error), err=True)
        sys.exit(_EXIT_FAULTY)


def _row(loaded: Loaded, name: str) -> dict[str, Any]:
    origin = loaded.origins.get(name, DEFAULT)
    return {
        "name": name,
        "value": written(getattr(loaded.settings, name)),
        "origin": str(origin),
        "origin_kind": origin.kind,
        "line": origin.line,
    }


def _shown(value: Any) -> str:
    """As it would be written in the file; of a long one its beginning."""
    text = value if isinstance(value, str) and value else json.dumps(value)
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"
