"""What a check found, and what to do about it."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

ONLY_ADMINS = "only an admin is told"

Verdict = Literal["ok", "warning", "problem", "not_checked"]


class Finding(Struct, frozen=True, kw_only=True):
    """One line of the report. It never holds a key or a part of one."""

    verdict: Verdict
    what: str
    remedy: str = ""


def ok(what: str) -> Finding:
    """As it should be."""
    return Finding(verdict="ok", what=what)


def warning(what: str, remedy: str) -> Finding:
    """It works, and is not as it should be."""
    return Finding(verdict="warning", what=what, remedy=remedy)


def problem(what: str, remedy: str) -> Finding:
    """It does not work, or does not hold what was set."""
    return Finding(verdict="problem", what=what, remedy=remedy)


def not_checked(what: str, remedy: str = "") -> Finding:
    """Nothing is known; `what` says why."""
    return Finding(verdict="not_checked", what=what, remedy=remedy)
