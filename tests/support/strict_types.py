"""Holds an answer's bytes against the types that an official client ships, stricter than the client
does: clients build objects without looking, so that a missing field shows only where it is used.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

JSON_TYPES: dict[Any, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    float: (int, float),
    bool: (bool,),
    NoneType: (NoneType,),
}
"""What JSON may have for a type. A bool is no number here, a float no integer."""


def conforms(expected: Any, answer: bytes | str, *, nullable: Collection[str] = ()) -> Any:
    """The decoded answer. `AssertionError` listing every field that is missing, of another type, or
    no literal of its type. `nullable` names fields ("Class.field") that may be null besides."""
    decoded = json.loads(answer)
    found = list(violations(expected, decoded, nullable=nullable))
    assert not found, "\n".join([*found, f"in {decoded}"])
    if not nullable and isinstance(expected, type) and issubclass(expected, BaseModel):
        expected.model_validate_json(answer, strict=True)
    return decoded


def violations(
    expected: Any, value: Any, where: str = "$", *, nullable: Collection[str] = ()
) -> Iterator[str]:
    """Lines that say where a decoded value differs from a type."""
    origin = get_origin(expected)
    if expected in (Any, object):
        return
    if origin is Annotated:
        yield from violations(get_args(expected)[0], value, where, nullable=nullable)
    elif origin in (Union, UnionType):
        yield from _no_member(get_args(expected), value, where, nullable)
    elif origin is Literal:
        literals = get_args(expected)
        if not any(type(value) is type(one) and value == one for one in literals):
            yield f"{where}: {value!r} is none of {literals}"
    elif origin in (list, dict):
        yield from _wrong_items(origin, get_args(expected), value, where, nullable)
    elif issubclass(expected, BaseModel):
        yield from _wrong_fields(expected, value, where, nullable)
    elif type(value) not in JSON_TYPES[expected]:
        yield f"{where}: {value!r} is no {expected.__name__}"


def _no_member(
    members: tuple[Any, ...], value: Any, where: str, nullable: Collection[str]
) -> Iterator[str]:
    """What keeps the value from being that member of a union which it is closest to."""
    if value is None and NoneType in members:
        return
    some = (member for member in members if member is not NoneType)
    yield from min(
        (list(violations(one, value, where, nullable=nullable)) for one in some), key=len
    )


def _wrong_items(
    kind: Any, items: tuple[Any, ...], value: Any, where: str, nullable: Collection[str]
) -> Iterator[str]:
    if not isinstance(value, kind):
        yield f"{where}: {value!r} is no {kind.__name__}"
        return
    keys: Any = value if kind is dict else range(len(value))
    for key, item in ((key, value[key]) for key in keys):
        yield from violations(items[-1], item, f"{where}[{key!r}]", nullable=nullable)


def _wrong_fields(
    model: type[BaseModel], value: Any, where: str, nullable: Collection[str]
) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where}: {value!r} is no {model.__name__}"
        return
    for attribute, field in model.model_fields.items():
        name = field.alias or attribute
        inside = f"{where}.{name}"
        if name not in value:
            if field.is_required():
                yield f"{inside}: missing in {model.__name__}"
        elif value[name] is not None or f"{model.__name__}.{name}" not in nullable:
            yield from violations(field.annotation, value[name], inside, nullable=nullable)
