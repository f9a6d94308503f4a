"""`.env`: our variables in a file. Lines that set those of other programs are not looked at."""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from pathlib import Path

from msgspec import Struct

from balancer.config_file.faults import FaultyConfiguration, Origin
from balancer.config_file.files import faulty_file, fingerprint, read_bounded

_OURS = re.compile(r"\s*(?:export\s+)?(PADDLER_\w*|LOG_LEVEL(?!\w))")
_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?(\w+)\s*=\s*(.*?)\s*")
_QUOTED = re.compile(r"""(["'])(.*)\1\s*(?:#.*)?""")


class Variable(Struct, frozen=True):
    """What a variable is set to, and where."""

    value: str
    origin: Origin


def read_dotenv(path: Path) -> dict[str, Variable]:
    """`NAME=value` lines, `export` before them, quotes around the value, ` #` before a comment. No
    file is no variables. Raises `FaultyConfiguration`."""
    if fingerprint(path) is None:
        return {}
    data = read_bounded(path, "dotenv").removeprefix(BOM_UTF8)
    variables: dict[str, Variable] = {}
    for number, raw in enumerate(data.split(b"\n"), start=1):
        line = raw.decode("utf-8", "replace")
        if ours := _OURS.match(line):
            name, value = _assignment(path, number, ours[1], line)
            variables[name] = Variable(value, Origin("dotenv", f"{path}, {name}", number))
    return variables


def _assignment(path: Path, number: int, name: str, line: str) -> tuple[str, str]:
    found = _ASSIGNMENT.fullmatch(line)
    if found is None:
        raise _fault(path, number, name, "there is no value", f"write {name}=value")
    if "�" in line:
        raise _fault(path, number, name, "this is not UTF-8", "save the file as UTF-8")
    value = found[2]
    if value[:1] in ("'", '"'):
        quoted = _QUOTED.fullmatch(value)
        if quoted is None:
            raise _fault(
                path, number, name, "a quote is not closed", f"write {name}={value[0]}…{value[0]}"
            )
        return found[1], quoted[2]
    return found[1], re.split(r"(?:^|\s)#", value, maxsplit=1)[0].rstrip()


def _fault(path: Path, line: int, field: str, problem: str, remedy: str) -> FaultyConfiguration:
    return faulty_file(path, line, problem, remedy, field=field, kind="dotenv")
