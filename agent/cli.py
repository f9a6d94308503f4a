"""`paddler-py agent`: options, logging, signals, exit codes. What they mean is in `settings`.

Exit codes: 0 stopped as asked, 1 the balancer refused the agent, 2 a setting is wrong, 3 the model
cannot be served.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import textwrap
from collections.abc import Callable, MutableMapping
from functools import partial
from typing import Any, NamedTuple, TextIO

import click
import structlog
import uvloop

from agent.app import App, run_agent
from agent.demo_model import DEMO_MODEL_PATH
from agent.errors import ConfigError, ModelRejected, RegistrationRefused
from agent.settings import MAX_SLOTS, VARIABLES, LogFormat, LogLevel, Settings, build
from agent.variables import strangers
from protocol.crashes import tell_crashes, told, what_asyncio_says
from protocol.journal import for_journal, is_journal
from protocol.redaction import redacted_within
from protocol.service_manager import ServiceManager
from protocol.visible import harmless, line_of_facts

log = structlog.get_logger()

EXIT_REFUSED = 1
EXIT_WRONG_SETTING = 2
EXIT_MODEL_REJECTED = 3

ISSUE_WIDTH = 96
"""Characters of a line of an issue's text, in a log for people."""

LOADING = "loading model"
BAR_WIDTH = 15
"""Characters of the bar that says how far a model is loaded: the line fits 80."""

MODEL_ALIASES = {"demo": DEMO_MODEL_PATH}


_FILE = click.Path()
"""Text that a shell completes as the name of a file."""


def _switches(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The words of a switch that begin so."""
    del ctx, param
    return [word for word in ("auto", "on", "off") if word.startswith(incomplete)]


_switch = partial(click.option, metavar="auto|on|off", shell_complete=_switches)


@click.command()
@click.option(
    "--balancer", metavar="[wss://]HOST:PORT", help="The balancer's management port (required)."
)
@click.option(
    "--ca-file",
    type=_FILE,
    metavar="FILE",
    help="Who signed a wss:// balancer's certificate (the system's).",
)
@click.option(
    "--client-certificate",
    type=_FILE,
    metavar="FILE",
    help="What the agent shows of itself (none).",
)
@click.option("--client-key", type=_FILE, metavar="FILE", help="Its key (in the same file).")
@click.option(
    "--model", type=_FILE, metavar="FILE.gguf", help="The model, or `demo`, which ships (required)."
)
@click.option("--name", help="The agent's name (its host, model and a free number).")
@click.option("--alias", multiple=True, metavar="NAME", help="A name of the model (its file's).")
@click.option("--label", multiple=True, metavar="K=V", help="A fact about the agent (none).")
@click.option("--slots", metavar="N", help=f"Requests at once, 1 to {MAX_SLOTS} (4, if they fit).")
@click.option("--context", metavar="N", help="Tokens of context over all slots (as many as fit).")
@click.option("--threads", metavar="N", help="Threads that compute (physical cores, less one).")
@click.option("--gpu-layers", metavar="N", help="Layers on the GPU (as many as fit).")
@click.option("--batch", metavar="N", help="Tokens a batch (a micro-batch's).")
@click.option("--micro-batch", metavar="N", help="Tokens a micro-batch (512, fewer if short).")
@click.option("--cache-type", metavar="T", help="f16, f32 or q8_0: the type of the KV cache (f16).")
@_switch("--flash-attention", help="Use flash attention (auto).")
@_switch("--unified-kv", help="One KV cache for all slots (auto).")
@_switch("--fit", help="Check that the model fits the memory (auto).")
@_switch("--backend-sampling", help="Reduce logits on the GPU (auto).")
@_switch("--prefix-cache", help="Reuse what prompts share (auto).")
@click.option(
    "--host-cache",
    metavar="MIB",
    help="Memory for prefixes that gave way (a quarter of what is free, at most 8192).",
)
@click.option(
    "--target-gap-ms",
    metavar="MS",
    help="Time between tokens while prompts come in (0: 128 prompt tokens a step, or more).",
)
@_switch("--speculation", help="Draft from the prompt's text (auto).")
@click.option(
    "--mmproj",
    type=_FILE,
    metavar="FILE.gguf",
    help="The projector of a model that sees or hears (none).",
)
@click.option(
    "--draft-model", type=_FILE, metavar="FILE.gguf", help="A small model to guess tokens (none)."
)
@click.option("--lora", multiple=True, metavar="NAME=FILE", help="An adapter to ask for (none).")
@click.option(
    "--keep-warm", type=_FILE, multiple=True, metavar="FILE", help="A prompt kept in memory (none)."
)
@click.option(
    "--chat-template", type=_FILE, metavar="FILE", help="A Jinja template (the model's own)."
)
@click.option(
    "--tool-format", metavar="NAME", help="How tool calls are written (as in the template)."
)
@click.option("--reasoning-format", metavar="NAME", help="How reasoning is (as in the template).")
@click.option(
    "--token-file", type=_FILE, metavar="FILE", help="What the balancer asks agents for (none)."
)
@click.option("--log-level", metavar="L", help="debug, info, warning or error (info).")
@click.option("--log-format", metavar="F", help="json or console (console).")
def agent(**flags: Any) -> None:
    """Serve a GGUF model for a balancer from this host.

    Every option can be given as an environment variable: --gpu-layers as
    PADDLER_AGENT_GPU_LAYERS. PADDLER_AGENT_TOKEN has the token itself.
    """
    try:
        settings = build(flags, os.environ, model_aliases=MODEL_ALIASES)
        unknown = strangers(os.environ, VARIABLES)
        configure_logging(settings.log_level, settings.log_format)
        tell_crashes()
        if unknown:
            structlog.get_logger().warning("no setting has these variables", variables=unknown)
        refusal = uvloop.run(_run(settings))
    except ConfigError as error:
        _tell_manager(str(error))
        raise WrongSetting(str(error)) from error
    if refusal is not None:
        _tell_manager(refusal.words)
        click.echo(f"Error: {refusal.words}", err=True)
        sys.exit(refusal.exit_code)


def _tell_manager(words: str) -> None:
    """The last that `systemctl status` says."""
    ServiceManager.of(os.environ).say(status=words)


class WrongSetting(click.ClickException):
    """One line that says what to do; the usage would say less in three more."""

    exit_code = EXIT_WRONG_SETTING


class _Refusal(NamedTuple):
    """Why the agent cannot serve."""

    exit_code: int
    words: str


async def _run(settings: Settings) -> _Refusal | None:
    """Serve until a signal, or until the balancer or the engine refuses for good."""
    started: list[App] = []

    def stop() -> None:
        for app in started:
            app.stop()

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_tell_unhandled)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup has a hangup ignored
            loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGUSR1, LevelSwitch(settings.log_level).turn)
    refusal = None
    try:
        await run_agent(settings, on_start=started)
    except* RegistrationRefused as refused:
        words = "; ".join(str(error) for error in refused.exceptions)
        refusal = _Refusal(EXIT_REFUSED, f"the balancer refused this agent: {words}")
    except* ModelRejected as rejected:
        words = "; ".join(str(error) for error in rejected.exceptions)
        refusal = _Refusal(EXIT_MODEL_REJECTED, words)
    return refusal


def _tell_unhandled(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    message, error = what_asyncio_says(context)
    log.error("not handled", reason=message, exc_info=error)


def configure_logging(level: LogLevel, log_format: LogFormat) -> None:
    """Log lines to standard error, as JSON or for people; each begins with its level where that is
    systemd's journal."""
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else _IssueBelow(
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                exception_formatter=_write_traceback,
            )
        )
    )
    in_place = log_format == "console" and _is_terminal()
    if is_journal(os.environ):
        renderer = for_journal(renderer)
    elif in_place:
        renderer = _bar_of_progress(renderer)
    exceptions = (
        [structlog.processors.ExceptionRenderer(lambda given: told(given[1]))]
        if log_format == "json"
        else []
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _without_openers,
            *exceptions,
            *([line_of_facts] if log_format == "console" else []),
            renderer,
        ],
        wrapper_class=_logger_of(level),
        logger_factory=_OneTerminal() if in_place else structlog.PrintLoggerFactory(sys.stderr),
    )


def _write_traceback(line: TextIO, given: structlog.types.ExcInfo) -> None:
    """Without local variables and what errors quote: both hold prompts."""
    line.write("\n" + harmless(told(given[1])))


def _without_openers(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """No credential, where one should ever come into a line."""
    for key, value in event.items():
        if isinstance(value, str | list | tuple | dict) and key != "exc_info":
            event[key] = redacted_within(value)
    return event


def _logger_of(level: LogLevel) -> type[structlog.typing.FilteringBoundLogger]:
    return structlog.make_filtering_bound_logger(getattr(logging, level.upper()))


class LevelSwitch:
    """How much is logged while the agent runs: everything at one signal, what was set at the
    next."""

    def __init__(self, level: LogLevel) -> None:
        self._set: LogLevel = level
        self._now: LogLevel = level

    def turn(self) -> None:
        """The other one."""
        self._now = self._set if self._now == "debug" else "debug"
        structlog.configure(wrapper_class=_logger_of(self._now))
        log.warning("log level changed", after=self._now)


def _is_terminal() -> bool:
    """Whether a line of the log can be written over."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


class _IssueBelow:
    """Renders a line with the text of its issue, some sentences, on lines of their own below."""

    def __init__(self, render: Callable[[Any, str, MutableMapping[str, Any]], str]) -> None:
        self._render = render

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        issue = event.pop("issue", "")
        lines = textwrap.wrap(issue, ISSUE_WIDTH, break_long_words=False, break_on_hyphens=False)
        return "\n    ".join((self._render(logger, method, event), *lines))


class _Passing(str):
    """A line that the next one takes the place of."""


def _bar_of_progress(
    render: Callable[[Any, str, MutableMapping[str, Any]], str],
) -> Callable[[Any, str, MutableMapping[str, Any]], str]:
    """Renders how far a model is loaded as a bar that moves."""

    def rendered(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        if event.get("event") != LOADING:
            return render(logger, method, event)
        percent = event.pop("percent")
        done = BAR_WIDTH * percent // 100
        bar = "#" * done + "." * (BAR_WIDTH - done)
        return _Passing(f"{render(logger, method, event).rstrip()} [{bar}] {percent}%")

    return rendered


class _OneTerminal:
    """The one logger of standard error, a terminal: a passing line is written over."""

    def __init__(self) -> None:
        self._is_on_passing = False

    def __call__(self, *names: Any) -> _OneTerminal:
        """Itself, whoever asks: all write to one place."""
        del names
        return self

    def msg(self, line: str) -> None:
        """One line."""
        erase = "\r\x1b[K" if self._is_on_passing else ""
        self._is_on_passing = isinstance(line, _Passing)
        sys.stderr.write(f"{erase}{line}" + ("" if self._is_on_passing else "\n"))
        sys.stderr.flush()

    log = debug = info = warning = error = critical = exception = msg
