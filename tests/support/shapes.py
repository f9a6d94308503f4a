"""Values held against the shapes that documents promise: these fields and types, more allowed."""

from __future__ import annotations

from types import NoneType
from typing import Any

NUMBER = (int, float)
MAYBE_TEXT = (str, NoneType)
MAYBE_NUMBER = (int, float, NoneType)


def misfits(value: Any, shape: Any, at: str = "$") -> list[str]:
    """What the value has otherwise, place by place.

    A shape is a type or a tuple of them (no bool is a number), a dict of the fields that must be
    there, a list of the one shape of all entries, of which there is at least one, or the value.
    """
    match shape:
        case dict():
            if not isinstance(value, dict):
                return [f"{at} is no object: {value!r}"]
            lacking = [f"{at}.{name} is not there" for name in shape if name not in value]
            present = [name for name in shape if name in value]
            return lacking + [
                fault
                for name in present
                for fault in misfits(value[name], shape[name], f"{at}.{name}")
            ]
        case [entry]:
            if not isinstance(value, list) or not value:
                return [f"{at} is no list with entries: {value!r}"]
            return [
                fault
                for index, one in enumerate(value)
                for fault in misfits(one, entry, f"{at}[{index}]")
            ]
        case type() | tuple():
            return [] if _is_of(value, shape) else [f"{at} is of another type: {value!r}"]
    return [] if value == shape and type(value) is type(shape) else [f"{at} is {value!r}"]


def _is_of(value: Any, types: Any) -> bool:
    wanted = types if isinstance(types, tuple) else (types,)
    return isinstance(value, wanted) and (not isinstance(value, bool) or bool in wanted)
