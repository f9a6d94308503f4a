"""How log lines look: JSON for machines, colours for a terminal, always on stderr.

Events are lower-case phrases with facts as keys. What people write to a model, what it answers and
what opens doors is never logged: keys that could hold it are cut as a last line of defence, and so
is what looks like a credential in any text.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from typing import Any, TextIO

import structlog
from structlog.types import ExcInfo, Processor

from balancer.observability.log_ring import RANKS, LogRing
from balancer.settings import LogFormat, LogLevel
from protocol.crashes import told
from protocol.journal import for_journal, is_journal
from protocol.redaction import NOT_LOGGED, redacted_within
from protocol.visible import harmless, line_of_facts

_PRIVATE_KEYS = frozenset(
    {
        "api_key",
        "api_keys",
        "authorization",
        "body",
        "completion",
        "content",
        "cookie",
        "credentials",
        "delta",
        "messages",
        "password",
        "prompt",
        "secret",
        "token",
    }
)

_ALWAYS_SHOWN = "balancer.observability.audit"
"""Whoever may change the level must not end by that what is written of him."""


def configure(level: LogLevel, log_format: LogFormat, ring: LogRing | None = None) -> None:
    """Set up logging for the process: ours and, through stdlib logging, the libraries'. `ring`
    remembers the latest lines.

    Lines for systemd's journal begin with their level.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_private,
        *([ring.keep] if ring is not None else ()),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        # what is below the level costs a call, and no event: requests are logged one by one
        wrapper_class=_leveled_logger(),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    *before, render = _rendering(log_format)
    handler = _Handler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *before,
                for_journal(render) if is_journal(os.environ) else render,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    logging.getLogger(_ALWAYS_SHOWN).setLevel(logging.INFO)
    set_level(level)


class _Handler(logging.StreamHandler[TextIO]):
    """Where a line cannot be written, Python would write its raw facts beside a traceback."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Say why, and nothing of the line."""
        del record
        with suppress(OSError, ValueError):
            self.stream.write(f"a line of the log is lost\n{told(sys.exc_info()[1])}\n")


def _leveled_logger() -> type:
    """Loggers that ask for the level in force, which may change: one that is made for a level keeps
    it."""
    unfiltered = structlog.make_filtering_bound_logger(logging.NOTSET)

    def leveled(name: str, rank: int) -> Callable[..., Any]:
        log = getattr(unfiltered, name)

        def write(self: Any, event: str, *args: Any, **facts: Any) -> Any:
            return log(self, event, *args, **facts) if self._logger.isEnabledFor(rank) else None

        return write

    methods = {name: leveled(name, RANKS[name]) for name in ("debug", "info", "warning", "error")}
    return type("LeveledLogger", (unfiltered,), methods)


def set_level(level: LogLevel) -> None:
    """Show lines of this level and above from now on."""
    logging.getLogger().setLevel(level.upper())


def tell_that_content_is_logged() -> None:
    """At the start, and when it is switched on."""
    structlog.get_logger(__name__).warning(
        "prompts and answers are logged: everybody who reads this log can read them",
        setting="log_content",
    )


def level_now() -> str:
    """The least level that is shown."""
    return logging.getLevelName(logging.getLogger().level).lower()


def _rendering(log_format: LogFormat) -> list[Processor]:
    """Tracebacks come without local variables and what errors quote: both hold prompts."""
    if log_format == "json":
        return [
            structlog.processors.ExceptionRenderer(lambda given: told(given[1])),
            structlog.processors.JSONRenderer(),
        ]
    return [
        line_of_facts,
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=_write_traceback
        ),
    ]


def _write_traceback(line: TextIO, given: ExcInfo) -> None:
    line.write("\n" + harmless(told(given[1])))


def _without_private(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for key in _PRIVATE_KEYS & event.keys():
        event[key] = NOT_LOGGED
    for key, value in event.items():
        if isinstance(value, str | list | tuple | dict) and key != "exc_info":
            event[key] = redacted_within(value)
    return event
