"""Reads a configuration's files, bounded, and knows them again."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from balancer.config_file.faults import Fault, FaultyConfiguration, Origin, OriginKind

MAX_FILE_BYTES = 256 * 1024

Fingerprint = tuple[int, int, int, int] | None
"""Of a file: when it was written, when anything of it changed (who may read it, too), which file it
is, its size; None: it is not there."""


def fingerprint(path: Path) -> Fingerprint:
    """Of the file as it is now; links are followed. Costs one `stat`."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size


def read_bounded(path: Path, kind: OriginKind) -> bytes:
    """The content. Raises `FaultyConfiguration`, also where there is no file, and where it is a
    pipe or a device: these have no end, or nothing to read at a reload."""
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                remedy = "write the settings into a file"
                raise faulty_file(path, None, "this is no regular file", remedy, kind=kind)
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        remedy = "make it readable for the balancer's user, or name another one"
        raise faulty_file(path, None, f"it cannot be read: {reason}", remedy, kind=kind) from error
    if len(data) > MAX_FILE_BYTES:
        line = data.count(b"\n") + 1
        problem = f"it has more than {MAX_FILE_BYTES // 1024} KiB"
        raise faulty_file(path, line, problem, "is it the right file?", kind=kind)
    return data


def _open_at_once(path: str, flags: int) -> int:
    """A pipe would be waited for until somebody writes."""
    return os.open(path, flags | os.O_NONBLOCK)


def faulty_file(
    path: Path,
    line: int | None,
    problem: str,
    remedy: str,
    *,
    field: str = "file",
    kind: OriginKind = "file",
) -> FaultyConfiguration:
    """The error for one place of a file."""
    origin = Origin(kind, str(path), line)
    return FaultyConfiguration([Fault(field=field, problem=problem, origin=origin, remedy=remedy)])
