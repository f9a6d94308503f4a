"""Sections of settings: nested values, each with its own line when it is wrong.

What may stand in a section is said by a Struct; msgspec finds what does not fit and where, and the
line of that place goes to whoever wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, get_args

import msgspec

from balancer.config_file.yaml_file import Entry
from protocol.invariants import present

_WHERE = re.compile(r"^(?P<problem>.*?)(?: - at `(?:key in )?\$(?P<path>[^`]*)`)?$", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")

_Shape = TypeVar("_Shape")


class SectionFault(Exception):
    """Something in a section is wrong. `steps` lead to it: names and indexes."""

    def __init__(self, steps: tuple[str | int, ...], problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.steps = steps
        self.problem = problem
        self.remedy = remedy

    def field(self, section: str) -> str:
        """As its writer knows it."""
        written = "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in self.steps)
        return f"{section}{written}"


def plain(value: Any) -> Any:
    """A section without its lines."""
    if isinstance(value, Entry):
        return plain(value.value)
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value


def line_of(value: Any, steps: tuple[str | int, ...], line: int | None) -> int | None:
    """Where something stands; of what is in a list, where the list does, if nothing nearer is
    known."""
    for step in steps:
        if isinstance(value, Mapping) and step in value:
            entry = value[step]
            value, line = entry.value, entry.line
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
            line = _first_line(value) or line
        else:
            break
    return line


def _first_line(value: Any) -> int | None:
    if isinstance(value, Mapping):
        return min((entry.line for entry in value.values()), default=None)
    return None


def shaped(raw: Any, shape: type[_Shape], remedy: str) -> _Shape:
    """A section as this Struct. Raises `SectionFault`; texts are read as numbers where numbers
    are wanted, as YAML's values stay as they are written."""
    try:
        return msgspec.convert(plain(raw), shape, strict=False)
    except msgspec.ValidationError as error:
        found = present(_WHERE.match(str(error)))  # anything matches
        raise SectionFault(_steps(found["path"] or ""), found["problem"], remedy) from error


def _steps(path: str) -> tuple[str | int, ...]:
    steps: list[str | int] = []
    for name, index in _STEP.findall(path):
        if name:
            steps.append(name)
        elif index != "...":
            steps.append(int(index))
    return tuple(steps)


@contextmanager
def within(*steps: str | int) -> Iterator[None]:
    """Faults in this are in that place of the section."""
    try:
        yield
    except SectionFault as fault:
        raise SectionFault((*steps, *fault.steps), fault.problem, fault.remedy) from fault


def listed(names: Any) -> str:
    """A `Literal`'s names, for people."""
    return ", ".join(get_args(names))
