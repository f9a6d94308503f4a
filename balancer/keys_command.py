"""`paddler-py keys`: API keys made, listed, revoked and rotated in the balancer's own file, whether
or not it runs. One that runs notices within a second."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from math import isnan
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
import msgspec
from sqlalchemy.exc import SQLAlchemyError

from balancer.access import Role, RouteClass, Tier
from balancer.config_file.faults import FaultyConfiguration
from balancer.config_file.key_facts import key_facts
from balancer.config_file.load import CONFIG_VARIABLE, Loading, Sources, dotenv_beside
from balancer.config_file.sections import SectionFault
from balancer.errors import BalancerError, SettingError, StoreFailed
from balancer.http.management.key_rows import KeyRow, key_row
from balancer.settings import Settings
from balancer.storage.keys import LONGEST_OVERLAP_S, OVERLAP_S, MadeKey, can_manage
from balancer.storage.sql_keys import FILE_NAME, SqlKeys
from balancer.storage.sqlite_file import reason

_HELP = {"help_option_names": ["-h", "--help"]}
_EXIT_FAILED = 1
_EXIT_WRONG_SETTING = 2
_LONGEST_DAYS = 36_500
_AGENTS_NEED_ONE = (
    "From now on everybody needs a key. Agents need one of role system, too (make it with --role "
    "system --route agents, start them with --token-file FILE); those that had none are "
    "disconnected within a second."
)
_IS_AN_ADMIN = (
    "Role system may do all that an admin may; a key that lets agents in and nothing else is made "
    "with --route agents."
)
_T = TypeVar("_T", bound=Callable[..., Any])


class _Finite(click.FloatRange):
    """What is no number is in no range."""

    name = "float range"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As `FloatRange`, which lets NaN by."""
        found = super().convert(value, param, ctx)
        if isnan(found):
            self.fail(f"{value!r} is no number", param, ctx)
        return found


def _common(command: _T) -> _T:
    """The options of all of them."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="For programs."),
        click.option("--data-dir", metavar="DIR", help="Where the balancer keeps its keys."),
        click.option("--environment", metavar="NAME", help="Lay paddler.NAME.yaml over the file."),
        click.option(
            "--config",
            type=click.Path(path_type=Path),
            envvar=CONFIG_VARIABLE,
            metavar="FILE",
            help="The balancer's paddler.yaml.",
        ),
    ):
        command = option(command)
    return command


@click.group(context_settings=_HELP)
def keys() -> None:
    """Make, list, revoke and rotate API keys, in the balancer's data directory.

    Its settings are found as `paddler-py balancer` finds them. A balancer that runs notices within
    a second.
    """


@keys.command(context_settings=_HELP)
@click.option("--name", required=True, help="How lists and logs are to name it.")
@click.option("--role", type=click.Choice(get_args(Role)), default="user", show_default=True)
@click.option("--tier", type=click.Choice(get_args(Tier)))
@click.option("--tenant", metavar="NAME", help="Whose it is; without it, it is its own.")
@click.option("--model", "models", multiple=True, metavar="NAME", help="For these; repeatable.")
@click.option(
    "--route", "routes", multiple=True, type=click.Choice(get_args(RouteClass)), help="For these."
)
@click.option("--network", "networks", multiple=True, metavar="CIDR", help="From there alone.")
@click.option("--agent", "agents", multiple=True, metavar="NAME", help="For agents so called.")
@click.option("--label", "labels", multiple=True, metavar="K=V", help="For agents that have it.")
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="NAME=NUMBER",
    help="As requests_per_minute=100, or chat.burst=5 for routes of a class; repeatable.",
)
@click.option("--expires", metavar="TIME", help="As 2027-01-31T00:00:00Z.")
@click.option(
    "--expires-in-days", type=_Finite(0.001, _LONGEST_DAYS), metavar="N", help="From now."
)
@_common
def create(
    limits: tuple[str, ...],
    labels: tuple[str, ...],
    expires_in_days: float | None,
    *,
    as_json: bool,
    **options: Any,
) -> None:
    """Make a key and print it, this once. The first has to be of role admin."""
    members = ("name", "role", "tier", "tenant", "models", "routes", "networks", "agents")
    raw = _written(options, members)
    if labels:
        raw["labels"] = dict(label.partition("=")[::2] for label in labels)
    if limits:
        raw["limits"] = _limits(limits)
    if (expires := _end(options["expires"], expires_in_days)) is not None:
        raw["expires"] = expires
    with _told(), _store(options, is_made=True) as (store, settings):
        facts = key_facts(raw)
        is_first = settings.auth.is_open and not store.overview().keys
        made = store.create(facts.id, facts, is_managed=_is_managed(settings))
        kept = f"Kept in {(Path(settings.data_dir) / FILE_NAME).absolute()}."
        notes = [kept]
        if is_first:
            notes.append(_AGENTS_NEED_ONE)
        if facts.role == "system" and not facts.classes:
            notes.append(_IS_AN_ADMIN)
        _show_made(made, as_json=as_json, notes=notes)


@keys.command("list", context_settings=_HELP)
@click.option("--all", "shows_ended", is_flag=True, help="Those that have ended, too.")
@_common
def list_(*, shows_ended: bool, as_json: bool, **options: Any) -> None:
    """Print the keys that were made and are in force; nothing opens by what is shown.

    --json has all that each may do.
    """
    with _told(), _store(options) as (store, _):
        now_s = time.time()
        rows = [key_row(key, now_s=now_s) for key in store.overview().keys]
    shown = [row for row in rows if shows_ended or row.state == "active"]
    if as_json:
        click.echo(_json(shown))
        return
    for row in shown:
        click.echo(_line(row))
    if len(shown) < len(rows):
        click.echo(f"{len(rows) - len(shown)} more have ended: --all", err=True)
    if not rows:
        click.echo(
            "no key was made yet; begin with `paddler-py keys create --role admin`", err=True
        )


@keys.command(context_settings=_HELP)
@click.argument("key")
@_common
def revoke(key: str, *, as_json: bool, **options: Any) -> None:
    """End KEY, an id or a name, at once and for good."""
    with _told(), _store(options) as (store, _):
        row = key_row(store.revoke(key), now_s=time.time())
    click.echo(_json(row) if as_json else _line(row))


@keys.command(context_settings=_HELP)
@click.argument("key")
@click.option(
    "--overlap",
    "overlap_s",
    type=_Finite(0, LONGEST_OVERLAP_S),
    default=OVERLAP_S,
    show_default=True,
    metavar="S",
    help="So many seconds the one before goes on.",
)
@_common
def rotate(key: str, overlap_s: float, *, as_json: bool, **options: Any) -> None:
    """Give KEY, an id or a name, another text and print it, this once."""
    with _told(), _store(options) as (store, _):
        made = store.rotate(key, overlap_s=overlap_s)
    _show_made(made, as_json=as_json)


@contextmanager
def _store(
    options: Mapping[str, Any], *, is_made: bool = False
) -> Iterator[tuple[SqlKeys, Settings]]:
    """The keys of the balancer that these options are those of. A file that is not there is made
    where `is_made`; else nothing is in it."""
    config = options["config"]
    sources = Sources(
        flags={"data_dir": options["data_dir"]},
        variables=dict(os.environ),
        config=config,
        environment=options["environment"],
        dotenv=dotenv_beside(config),
        is_alone=True,  # nobody needs the keys that the balancer's own variables hold
    )
    settings = Loading(sources).apart().settings
    if not settings.data_dir:
        raise SettingError(
            "data_dir is not set, so that the balancer keeps its keys in memory; set it (in "
            "paddler.yaml, PADDLER_DATA_DIR or --data-dir) for the balancer and here, or use "
            "POST /keys of the balancer that runs"
        )
    directory = Path(settings.data_dir)
    is_there = is_made or _is_there(directory / FILE_NAME)
    store = SqlKeys(directory if is_there else None, now=time.time)
    try:
        yield store, settings
    finally:
        store.close()


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise SettingError(
            f"data_dir: {path} cannot be read ({error.strerror}); run this as the balancer's user"
        ) from error


@contextmanager
def _told() -> Iterator[None]:
    """What went wrong, in words, and the exit code."""
    try:
        yield
    except (FaultyConfiguration, SettingError) as error:
        _end_with(str(error), _EXIT_WRONG_SETTING)
    except SectionFault as fault:
        name = fault.field("").removeprefix(".")
        _end_with(f"{name}: {fault}; {fault.remedy}", _EXIT_WRONG_SETTING)
    except BalancerError as error:
        _end_with(error.message, _EXIT_FAILED)
    except StoreFailed as error:
        _end_with(str(error), _EXIT_FAILED)
    except SQLAlchemyError as error:
        _end_with(f"the file of keys: {reason(error)}; try again", _EXIT_FAILED)


def _end_with(message: str, code: int) -> None:
    for line in message.splitlines():
        click.echo(f"paddler-py keys: {line}", err=True)
    sys.exit(code)


def _is_managed(settings: Settings) -> bool:
    """Whether somebody can sign in as an operator by other means than a stored key, or may: whom
    an issuer's tokens stand for is known there."""
    auth = settings.auth
    others = [*auth.api_keys, *(one.credential for one in auth.basic)]
    return bool(auth.jwt or auth.introspection) or any(map(can_manage, others))


def _written(options: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """What was given, as a section of the configuration has it."""
    given = {name: options[name] for name in names if options[name]}
    return {name: list(one) if isinstance(one, tuple) else one for name, one in given.items()}


def _limits(given: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in given:
        name, _, number = one.partition("=")
        of, _, limit = name.rpartition(".")
        section = found.setdefault("routes", {}).setdefault(of, {}) if of else found
        section[limit] = number
    return found


def _end(expires: str | None, in_days: float | None) -> str | None:
    if expires is not None and in_days is not None:
        raise click.UsageError("give one of --expires and --expires-in-days")
    if in_days is None:
        return expires
    return (datetime.now(UTC) + timedelta(days=in_days)).isoformat(timespec="seconds")


def _show_made(made: MadeKey, *, as_json: bool, notes: Sequence[str] = ()) -> None:
    """The key alone on standard output, so that it can go to a file."""
    row = key_row(made.key, now_s=time.time())
    if as_json:
        click.echo(_json({**msgspec.to_builtins(row), "key": made.text, "notes": list(notes)}))
        return
    click.echo(made.text)
    click.echo(f"{row.id} {row.name} ({row.role}): the key is shown this once", err=True)
    if row.previous is not None:
        click.echo(f"the one before, {row.previous.prefix}…, ends {row.previous.ends}", err=True)
    for note in notes:
        click.echo(note, err=True)


def _line(row: KeyRow) -> str:
    ends = f"expires {row.expires}" if row.expires else "no end"
    used = f"used {row.last_used}" if row.last_used else "not used"
    of = f"{row.role}/{row.tier}" if row.tier else row.role
    return f"{row.id}  {row.prefix}…  {row.state:<7}  {of:<10}  {row.name}  {ends}, {used}"


def _json(value: Any) -> str:
    return json.dumps(msgspec.to_builtins(value), indent=2)
