"""The audit log: who did what that changes something, or was refused; when, and from where.

A line of JSON an event, in ASCII, so that no name can begin a line of its own or colour a terminal.
No line has a credential, nor what models are asked and answer.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

import structlog

from balancer.access import Role, SignIn
from balancer.errors import BalancerError, SettingError
from balancer.observability.audit_file import AuditFile
from balancer.settings import MIB, LiveSettings, Settings
from protocol.redaction import redacted

log = structlog.get_logger(__name__)

Outcome = Literal["done", "refused", "failed"]

FILE_NAME = "audit.jsonl"
IN_LOG = "-"
MOST_REFUSALS = 300
"""Lines a minute of each action that strangers can cause; what is past it is counted."""
_MINUTE_S = 60.0
_LONGEST_TEXT = 200
_MOST_FACTS = 16
_MOST_OF_LIST = 20
_BY_STRANGERS = frozenset(
    {"credentials.refused", "access.refused", "agent.refused", "session.open"}
)
"""Of these so many refusals a minute are written: strangers can cause as many as they like."""


class Who(Protocol):
    """A principal, as far as it is written down."""

    @property
    def id(self) -> str: ...
    @property
    def role(self) -> Role: ...
    @property
    def tenant(self) -> str: ...


class Caller(Protocol):
    """A request, over HTTP or a live socket."""

    @property
    def id(self) -> str: ...
    @property
    def principal(self) -> Who: ...
    @property
    def signed_in_by(self) -> SignIn: ...
    @property
    def address(self) -> str: ...


class Audit:
    """Notes events, in a file or among the other lines of the log. Noting never waits and never
    fails."""

    def __init__(
        self,
        path: Path | None = None,
        *,
        bounds: Callable[[], tuple[int, int]] = lambda: (64 * MIB, 8),
        on_lost: Callable[[int], None] = lambda _: None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`path`: none is the log. The rest as `AuditFile` wants it. Raises `OSError`."""
        self._wall_clock = wall_clock
        self._minutes: dict[str, _Minute] = {}
        self._file: AuditFile | None = None
        if path is not None:
            self._file = AuditFile(path, bounds=bounds, gap=self._gap, on_lost=on_lost)

    @classmethod
    def of(cls, live: LiveSettings, *, on_lost: Callable[[int], None]) -> Audit:
        """As the settings have it. Raises `SettingError`."""

        def bounds() -> tuple[int, int]:
            settings = live.current
            return settings.audit_log_bytes, settings.audit_log_files

        path = _path(live.current)
        try:
            return cls(path, bounds=bounds, on_lost=on_lost)
        except OSError as error:
            raise SettingError(
                f"audit_log: {path} cannot be written ({error.strerror or error})"
            ) from error

    @property
    def lost(self) -> int:
        """Lines that could not be written, and are not any more."""
        return 0 if self._file is None else self._file.lost

    @property
    def fault(self) -> str:
        """Why it cannot be written now; empty: it can."""
        return "" if self._file is None else self._file.fault

    def note(
        self,
        action: str,
        caller: Caller | None,
        *,
        target: str = "",
        outcome: Outcome = "done",
        **facts: Any,
    ) -> None:
        """Write down that somebody did something; without a caller it was the host's doing, by a
        signal or a file. Texts are cut at 200 characters."""
        if action in _BY_STRANGERS and outcome != "done":
            minute = self._minutes.setdefault(action, _Minute())
            if not minute.has_room(self._wall_clock()):
                return
            if left_out := minute.take_left_out():
                facts["left_out"] = left_out
        event = {
            "action": action,
            "outcome": outcome,
            "target": _short(target),
            **_who(caller),
            "facts": _bounded(facts),
        }
        if self._file is not None:
            self._file.put(self._line(event))
            return
        say = log.info if outcome == "done" else log.warning
        say("audit", **event)

    @contextmanager
    def noting(
        self, action: str, caller: Caller | None, *, target: str = "", **facts: Any
    ) -> Iterator[dict[str, Any]]:
        """Note what is done in here, however it ends; facts may be added to what is given."""
        try:
            yield facts
        except BaseException as error:
            outcome, reason = _end_of(error)
            self.note(action, caller, target=target, outcome=outcome, **facts, reason=reason)
            raise
        self.note(action, caller, target=target, **facts)

    @contextmanager
    def noting_refusals(self, action: str, caller: Caller | None) -> Iterator[None]:
        """Note what in here refuses the caller."""
        try:
            yield
        except BalancerError as error:
            self.note(action, caller, outcome="refused", reason=error.code)
            raise

    def reopen(self) -> None:
        """The file was moved away: begin a new one."""
        if self._file is not None:
            self._file.reopen()

    def close(self) -> None:
        """Write what waits, for five seconds at most."""
        if self._file is not None:
            self._file.close()

    def _line(self, event: dict[str, Any]) -> bytes:
        at = datetime.fromtimestamp(self._wall_clock(), UTC).isoformat(timespec="milliseconds")
        return json.dumps({"at": at.replace("+00:00", "Z"), **event}).encode() + b"\n"

    def _gap(self, lost: int) -> bytes:
        return self._line({"action": "audit.lost", "outcome": "failed", "facts": {"lines": lost}})


def _path(settings: Settings) -> Path | None:
    if settings.audit_log == IN_LOG:
        return None
    if settings.audit_log:
        return Path(settings.audit_log)
    return Path(settings.data_dir, FILE_NAME) if settings.data_dir else None


class _Minute:
    """How many lines of one action this minute has."""

    def __init__(self) -> None:
        self._began_s = 0.0
        self._lines = 0
        self._left_out = 0

    def has_room(self, unix_s: float) -> bool:
        if not 0 <= unix_s - self._began_s < _MINUTE_S:
            self._began_s, self._lines = unix_s, 0
        if self._lines >= MOST_REFUSALS:
            self._left_out += 1
            return False
        self._lines += 1
        return True

    def take_left_out(self) -> int:
        left_out, self._left_out = self._left_out, 0
        return left_out


def _who(caller: Caller | None) -> dict[str, Any]:
    if caller is None:
        return {"who": None, "from": None, "request_id": None}
    principal = caller.principal
    who = {
        "key": _short(principal.id),
        "role": principal.role,
        "tenant": _short(principal.tenant),
        "method": caller.signed_in_by,
    }
    return {"who": who, "from": _short(caller.address), "request_id": _short(caller.id)}


def _end_of(error: BaseException) -> tuple[Outcome, str]:
    if isinstance(error, BalancerError):
        return ("refused" if error.status < 500 else "failed"), error.code
    return "failed", type(error).__name__


def _bounded(facts: dict[str, Any]) -> dict[str, Any]:
    return {_short(name): _plain(facts[name]) for name in list(facts)[:_MOST_FACTS]}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_short(one) for one in value[:_MOST_OF_LIST]]
    return _short(value)


def _short(value: object) -> str:
    """Such that any reader of JSON can read it: a lone surrogate is a question mark."""
    text = redacted(str(value)[: 10 * _LONGEST_TEXT])[:_LONGEST_TEXT]
    return text.encode("utf-8", "replace").decode()
