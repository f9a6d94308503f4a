"""JSON of strangers who sign it, read so that nobody else can read it otherwise. Pure."""

from __future__ import annotations

import json
from typing import Any

from protocol.json_depth import is_too_deep

MAX_DEPTH = 8


def strict_object(data: bytes) -> dict[str, Any]:
    """An object in UTF-8 whose members all differ, without numbers that JSON does not have.
    Raises ValueError."""
    if is_too_deep(data, MAX_DEPTH):
        raise ValueError("it is nested too deep")
    found = json.loads(data.decode(), object_pairs_hook=_members, parse_constant=_no_number)
    if not isinstance(found, dict):
        raise ValueError("it is no object")
    return found


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member is there twice")
    return found


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
