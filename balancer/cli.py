"""`paddler-py balancer`: options only; they become settings, `app` does the rest."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any, get_args

import click
import structlog
import uvloop

from balancer.app import App, build
from balancer.config_file.configuration import Configuration
from balancer.config_file.load import CONFIG_VARIABLE, Sources, dotenv_beside
from balancer.errors import AddressNotFree, SettingError
from balancer.observability.log_ring import LogRing
from balancer.observability.logging import configure
from balancer.settings import LogFormat, LogLevel, PolicyName
from protocol.crashes import tell_crashes, what_asyncio_says
from protocol.service_manager import ServiceManager

log = structlog.get_logger(__name__)

_EXIT_ADDRESS_NOT_FREE = 1
_EXIT_WRONG_SETTING = 2


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar=CONFIG_VARIABLE,
    metavar="FILE",
    help="A paddler.yaml.",
)
@click.option("--environment", metavar="NAME", help="Lay paddler.NAME.yaml over the file.")
@click.option("--inference", metavar="HOST:PORT", help="Where clients go (127.0.0.1:8080).")
@click.option(
    "--management", metavar="HOST:PORT", help="Where operators and agents go (127.0.0.1:8081)."
)
@click.option(
    "--single-port", is_flag=True, default=None, help="Serve operators and agents there, too."
)
@click.option("--tls-certificate", metavar="FILE", help="Speak TLS with this certificate (PEM).")
@click.option("--tls-key", metavar="FILE", help="Its key (in the certificate's file).")
@click.option("--policy", type=click.Choice(get_args(PolicyName)), help="How agents are chosen.")
@click.option("--record-routes", metavar="FILE", help="Write down why requests went where.")
@click.option(
    "--image-host",
    "image_hosts",
    multiple=True,
    metavar="NAME",
    help="Fetch images from there that requests name by their URLs; repeatable.",
)
@click.option(
    "--data-dir", metavar="DIR", help="Keep keys, responses, counters and the audit log there."
)
@click.option("--heartbeat-interval", metavar="S", help="Seconds between agents' heartbeats (5).")
@click.option("--heartbeat-misses", metavar="N", help="Missed heartbeats until one is dead (3).")
@click.option("--queue-timeout", metavar="S", help="Longest wait for a slot; 0 is none (60).")
@click.option("--max-waiting", metavar="N", help="Requests that may wait (1024).")
@click.option("--drain-timeout", metavar="S", help="Time to finish in when stopped (30).")
@click.option("--insecure", is_flag=True, default=None, help="Listen beyond loopback, unguarded.")
@click.option("--log-content", is_flag=True, default=None, help="Log prompts and answers.")
@click.option("--log-level", type=click.Choice(get_args(LogLevel)), help="Least level shown.")
@click.option(
    "--log-format", type=click.Choice(get_args(LogFormat)), help="For people or machines."
)
def balancer(config: Path | None, environment: str | None, **flags: object) -> None:
    """Serve the inference and management APIs; agents dial in.

    A setting comes from its flag, else from its environment variable (PADDLER_…), else from `.env`,
    else from the file, else it has its default. SIGHUP reads them again.

    Exit codes: 0 stopped as asked, 1 an address is not free (try again), 2 a setting is wrong.
    """
    manager = ServiceManager.of(os.environ)
    renamed = {_setting_of(flag): value for flag, value in flags.items() if value != ()}
    try:
        configuration = Configuration(
            Sources(
                flags=renamed,
                variables=dict(os.environ),
                config=config,
                environment=environment,
                dotenv=dotenv_beside(config),
            )
        )
        settings = configuration.live.current
        ring = LogRing()
        configure(settings.log_level, settings.log_format, ring)
        tell_crashes()
        for warning in configuration.loaded.warnings:
            log.warning("settings", problem=warning)
        uvloop.run(_run(build(configuration, manager, log_ring=ring)))
    except SettingError as error:
        manager.say(status=str(error))
        for line in str(error).splitlines():
            click.echo(f"paddler-py balancer: {line}", err=True)
        is_passing = isinstance(error, AddressNotFree)
        sys.exit(_EXIT_ADDRESS_NOT_FREE if is_passing else _EXIT_WRONG_SETTING)


async def _run(app: App) -> None:
    asyncio.get_running_loop().set_exception_handler(_tell_unhandled)
    await app.run()


def _tell_unhandled(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    message, error = what_asyncio_says(context)
    log.error("not handled", reason=message, exc_info=error)


def _setting_of(flag: str) -> str:
    """A flag's setting: durations have their unit in the name."""
    seconds = {"heartbeat_interval", "queue_timeout", "drain_timeout"}
    return f"{flag}_s" if flag in seconds else flag
