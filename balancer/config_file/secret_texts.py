"""Texts that may stand in a variable or a file instead of the settings themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from balancer.config_file.sections import SectionFault

SecretReader = Callable[[str, str], str]
"""What a variable (`env`, NAME) or a file (`file`, PATH) holds. Raises ValueError with why not."""

_REMEDY = "write the text, or {env: VARIABLE}, or {file: PATH}"


class Unread(str):
    """Stands for what a variable holds where settings are looked at without it."""

    __slots__ = ()


def secret_text(raw: Any, read: SecretReader) -> str:
    """What was written, or what stands where that leads. Raises `SectionFault`, which does not
    repeat it."""
    if isinstance(raw, str):
        return raw
    if not isinstance(raw, Mapping) or len(raw) != 1 or not raw.keys() <= {"env", "file"}:
        raise SectionFault((), "this is no text", _REMEDY)
    ((kind, name),) = raw.items()
    if not isinstance(name, str):
        raise SectionFault((kind,), "this is no text", "put it in quotes")
    try:
        return read(kind, name)
    except ValueError as error:
        raise SectionFault((kind,), str(error), f"put it there, or {_REMEDY}") from error
