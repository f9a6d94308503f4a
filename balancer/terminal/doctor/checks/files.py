"""Who else on this host may read what is secret, or change what is trusted?"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from balancer.terminal.doctor.findings import (
    ONLY_ADMINS,
    Finding,
    not_checked,
    ok,
    problem,
    warning,
)
from balancer.terminal.doctor.patient import Patient

_OTHERS_READ = stat.S_IROTH | stat.S_IRGRP
_OTHERS_WRITE = stat.S_IWOTH | stat.S_IWGRP
_MOST_FILES = 1000
"""Of the data directory that are looked at."""


async def files(patient: Patient) -> list[Finding]:
    """The configuration, `.env` beside it, and the data directory."""
    if not patient.is_here:
        return [not_checked("the balancer's files are on another host", "run this there")]
    if patient.refused:
        return [not_checked(ONLY_ADMINS)]
    found = [*_configuration(patient), *_keys(patient), *_data(patient)]
    return found or [ok("there are no files: everything is in memory and in flags")]


def _configuration(patient: Patient) -> Iterator[Finding]:
    named = [*patient.files, *([patient.wishes.config] if patient.wishes.config else [])]
    beside = [path.parent / ".env" for path in named]
    for path in dict.fromkeys([*named, *beside]):
        mode = _mode(path)
        if mode is None:
            continue
        if mode & _OTHERS_WRITE:
            yield problem(f"{path}: others may change it", f"chmod 600 {path}")
        elif mode & _OTHERS_READ:
            what = f"{path}: others may read it, and with it any key that stands in it"
            yield warning(what, f"chmod 600 {path}, or keep keys in files of their own")
        else:
            yield ok(f"{path}: its owner's alone")


def _keys(patient: Patient) -> Iterator[Finding]:
    """What opens something, in files that the settings name."""
    settings = patient.settings
    key = settings.get("tls_key") or settings.get("tls_certificate")
    for name in (key, settings.get("tls_key_password_file")):
        mode = _mode(Path(str(name))) if name else None
        if mode is None:
            continue
        if mode & (_OTHERS_READ | _OTHERS_WRITE):
            yield problem(f"{name}: others may read or change it", f"chmod 600 {name}")
        else:
            yield ok(f"{name}: its owner's alone")


def _data(patient: Patient) -> Iterator[Finding]:
    folder = Path(str(patient.settings.get("data_dir") or ""))
    if not patient.settings.get("data_dir"):
        return
    mode = _mode(folder)
    if mode is None:
        yield not_checked(f"{folder} is not to be seen from here", "run this on the same host")
        return
    if mode & _OTHERS_WRITE:
        yield problem(f"{folder}: others may put files there", f"chmod 700 {folder}")
    is_closed = not mode & (stat.S_IXGRP | stat.S_IXOTH)
    bare = [] if is_closed else [path for path in _inside(folder) if _is_readable(path)]
    for path in bare:
        yield problem(f"{path}: others may read what is stored", f"chmod 600 {path}")
    if not bare:
        yield ok(f"{folder}: what is stored can be read by its owner alone")


def _inside(folder: Path) -> list[Path]:
    try:
        return [path for path in sorted(folder.iterdir())[:_MOST_FILES] if path.is_file()]
    except OSError:
        return []


def _is_readable(path: Path) -> bool:
    mode = _mode(path)
    return mode is not None and bool(mode & _OTHERS_READ)


def _mode(path: Path) -> int | None:
    """None: it is not there, or not to be seen."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None
