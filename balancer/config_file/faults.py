"""What is wrong with somebody's settings: which one, where it stands, what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from balancer.errors import SettingError

MAX_FAULTS = 20
"""Shown of one configuration; who repairs these sees the next ones."""
_SHOWN_CHARS = 80

OriginKind = Literal["default", "file", "dotenv", "environment", "flag"]


class Origin(Struct, frozen=True):
    """Where a value comes from. `name` is the file's path, the variable or the flag."""

    kind: OriginKind
    name: str = ""
    line: int | None = None

    def __str__(self) -> str:
        where = self.name or "default"
        return where if self.line is None else f"{where}, line {self.line}"


DEFAULT = Origin("default")


class Fault(Struct, frozen=True, kw_only=True):
    """One thing that is wrong. `field` is the setting as its writer knows it; "file" where the
    whole file cannot be read."""

    field: str
    problem: str
    origin: Origin
    remedy: str

    def __str__(self) -> str:
        return f"{self.field}: {self.problem} (from {self.origin}); {self.remedy}"


class FaultyConfiguration(SettingError):
    """Nothing of it is used."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        found = tuple(faults)
        self.faults = found[:MAX_FAULTS]
        lines = [str(fault) for fault in self.faults]
        if left := len(found) - len(self.faults):
            lines.append(f"… and {left} more")
        super().__init__("\n".join(lines))


def shown(value: object) -> str:
    """A value in a message: short, on one line."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a section"
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


def shown_name(name: str) -> str:
    """A name that somebody else chose, in a message: short, on one line."""
    return repr(name[:_SHOWN_CHARS])[1:-1] or "''"
